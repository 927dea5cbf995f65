"""What bad input gets on a real server: a clear message, the same worker, and the next item completes."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_flux_files as files
from tests.server_process import Server

Nodes = dict[str, dict[str, Any]]
SIZE = {"width": 64, "height": 64}


class Bench(files.Library):
    """A server with a tiny FLUX.1, and the graph that makes an image with it."""

    def graph(self, main: str = files.DEV, lora: str | None = None, **parts: str) -> dict[str, Any]:
        """Return a graph; `parts` are the loader's models by its fields."""
        selected = {field: self.identifier(name) for field, name in parts.items()}
        nodes: Nodes = {
            "model": {"type": "flux_model_loader", "model": self.identifier(main), **selected},
            "prompt": {"type": "flux_text_encoder", "prompt": "a red fox", "t5_max_seq_len": 256},
            "denoise": {"type": "flux_denoise", "num_steps": 1, "seed": 1, **SIZE},
            "image": {"type": "flux_vae_decode"},
        }
        edges = ["model.clip prompt.clip", "model.t5_encoder prompt.t5_encoder", "denoise.latents image.latents"]
        edges += ["prompt.conditioning denoise.positive_text_conditioning", "model.vae image.vae"]
        if lora:
            nodes["lora"] = {"type": "flux_lora_loader", "lora": self.identifier(lora)}
            edges += ["model.transformer lora.transformer", "lora.transformer denoise.transformer"]
        else:
            edges += ["model.transformer denoise.transformer"]
        pairs = [[end.split(".") for end in edge.split()] for edge in edges]
        return {
            "nodes": {name: {"id": name, "use_cache": False, **node} for name, node in nodes.items()},
            "edges": [
                {
                    "source": {"node_id": source[0], "field": source[1]},
                    "destination": {"node_id": target[0], "field": target[1]},
                }
                for source, target in pairs
            ],
        }

    def post(self, graph: dict[str, Any]) -> Any:
        body = {"batch": {"graph": graph, "runs": 1}, "prepend": False}
        return self.server.client.post("/api/v1/queue/default/enqueue_batch", json=body)

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Run a graph to its end and return the item."""
        answer = self.post(graph)
        assert answer.status_code == 200, answer.text
        return self.server.finished(answer.json()["item_ids"][0])

    def add(self, name: str, path: Path, **kind: str) -> str:
        """Install a file with a name."""
        self.install_file(path, {"name": name, **kind})
        return name

    def keep_parts(self, *names: str) -> None:
        """Have exactly these of the separate parts installed."""
        for name in set(files.PARTS) - set(names):
            if record := self.models.pop(name, None):
                self.server.client.delete(f"/api/v2/models/i/{record['key']}").raise_for_status()
        self.install(*(set(names) - self.models.keys()))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, flux_file: Path) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(flux_file, folder / files.FILES[files.DEV])
    files.write_parts(folder)
    files.write_lora(folder)
    server = Server(folder.parent / "flux-root").start()
    models = Bench(server, folder)
    models.install(files.DEV, files.LORA)
    yield models
    server.client.close()
    server.stop()


def change_weights(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def without_parts(bench: Bench) -> dict[str, Any]:
    bench.keep_parts()
    return bench.graph()


def without_t5(bench: Bench) -> dict[str, Any]:
    bench.keep_parts(files.CLIP, files.VAE)
    return bench.graph()


def part_of_another_kind(bench: Bench) -> dict[str, Any]:
    return bench.graph(t5_encoder_model=files.CLIP)


def without_vae(bench: Bench) -> dict[str, Any]:
    bench.keep_parts(files.T5, files.CLIP)
    return bench.graph()


def lora_of_another_family(bench: Bench) -> dict[str, Any]:
    path = shutil.copy(bench.folder / files.FILES[files.LORA], bench.folder / "klein.safetensors")
    return bench.graph(lora=bench.add("klein", Path(path), base="flux2"))


def gguf_of_an_unknown_type(bench: Bench) -> dict[str, Any]:
    import torch
    from gguf import GGMLQuantizationType, GGUFWriter
    from safetensors.torch import load_file

    path = bench.folder / "odd.gguf"
    writer = GGUFWriter(path, "flux")
    for name, tensor in load_file(bench.folder / files.FILES[files.DEV]).items():
        if name == "double_blocks.0.img_mlp.0.weight":
            packed = torch.zeros(tensor.shape[0], 40, dtype=torch.uint8).numpy()
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_1)
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return bench.graph(bench.add("odd", path))


def file_cut_off_after_its_installation(bench: Bench) -> dict[str, Any]:
    path = files.write_transformer(bench.folder / "cut.safetensors", num_single_layers=2, guidance_embeds=False)
    name = bench.add("cut", path)
    path.write_bytes(path.read_bytes()[:-5000])
    return bench.graph(name)


def file_that_is_gone(bench: Bench) -> dict[str, Any]:
    path = files.write_transformer(bench.folder / "gone.safetensors", in_channels=384, out_channels=64)
    name = bench.add("gone", path)
    path.unlink()
    return bench.graph(name)


def transformer_with_nan(bench: Bench) -> dict[str, Any]:
    path = shutil.copy(bench.folder / files.FILES[files.DEV], bench.folder / "nan.safetensors")
    change_weights(Path(path), lambda weights: weights["final_layer.linear.bias"].fill_(float("nan")))
    return bench.graph(bench.add("nan", Path(path)))


def vae_with_nan(bench: Bench) -> dict[str, Any]:
    path = files.write_vae(bench.folder / "nan vae.safetensors")
    change_weights(path, lambda weights: weights["decoder.conv_out.bias"].fill_(float("nan")))
    return bench.graph(vae_model=bench.add("nan vae", path))


def scales_with_nan(bench: Bench) -> dict[str, Any]:
    import torch

    path = shutil.copy(bench.folder / files.FILES[files.DEV], bench.folder / "scales.safetensors")
    scale = {"double_blocks.0.img_mlp.0.weight_scale": torch.tensor(float("nan"))}
    change_weights(Path(path), lambda weights: weights.update(scale))
    return bench.graph(bench.add("scales", Path(path)))


def sdnq_of_an_unknown_type(bench: Bench) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    from tests.quantized_forms import SDNQ, quantize

    path = bench.folder / "sdnq.safetensors"
    settings = {"quantization_config": '{"quant_method": "sdnq", "weights_dtype": "uint13"}'}
    save_file(quantize(SDNQ, load_file(bench.folder / files.FILES[files.DEV])), path, settings)
    return bench.graph(bench.add("sdnq", path, base="flux", type="main", variant="dev", format="sdnq_quantized"))


MESSAGES = {
    without_parts: r"Tiny FLUX comes without a CLIP-L text encoder: install one, for example .* select it as clip_embed_model",
    without_t5: r"Tiny FLUX comes without a T5 encoder: install one, for example .* select it as t5_encoder_model",
    part_of_another_kind: r"Tiny CLIP-L is a model of type clip_embed: select one of type t5_encoder",
    without_vae: r"Tiny FLUX comes without a VAE of FLUX\.1: install one, for example .* select it as vae_model",
    lora_of_another_family: r"klein is for flux2 models",
    gguf_of_an_unknown_type: r"odd\.gguf: tensors of GGUF type Q8_1 cannot be decoded: use a file of one of .*Q8_0",
    scales_with_nan: r"scales\.safetensors: the scales of double_blocks\.0\.img_mlp\.0\.weight are not numbers",
    sdnq_of_an_unknown_type: r"sdnq\.safetensors: .*weights of SDNQ's type uint13 cannot be decoded: use a model of the types",
    file_cut_off_after_its_installation: r"cut cannot be read, its file is missing or damaged: install it again \(.* 5000 bytes",
    file_that_is_gone: r"gone cannot be read, its file is missing or damaged: install it again",
    transformer_with_nan: r"denoising produced NaN or infinite values: the model",
    vae_with_nan: r"this VAE is damaged, it produces NaN or infinite values: install the model again",
}


@pytest.mark.parametrize("make", MESSAGES, ids=lambda make: make.__name__)
def test_the_message_helps_and_the_next_item_completes(make: Callable[[Bench], dict[str, Any]], bench: Bench) -> None:
    bench.keep_parts(*files.PARTS)
    item = bench.run(make(bench))
    assert item["status"] == "failed"
    assert re.search(MESSAGES[make], item["error_message"]), item["error_message"]
    worker = bench.server.a_worker().pid
    bench.keep_parts(*files.PARTS)
    assert bench.run(bench.graph(lora=files.LORA))["status"] == "completed"
    assert bench.server.a_worker().pid == worker


@pytest.mark.parametrize("field", ["width", "height"])
def test_sizes_off_the_grid_are_refused_before_anything_is_enqueued(field: str, bench: Bench) -> None:
    graph = bench.graph()
    graph["nodes"]["denoise"][field] = 72
    answer = bench.post(graph)
    assert answer.status_code == 422, answer.text
    assert "multiple of 16" in answer.text
