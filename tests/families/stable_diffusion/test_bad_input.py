"""What bad input gets: the item fails with a message that helps, the model is as it was bit for bit, and the next item runs."""

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invokeclone.engine.loading import files
from invokeclone.graph.invocations import registry
from invokeclone.kit.resources import Resources
from invokeclone.models.install.embedded_model import EMBEDDED, EMBEDDED_KEY, register_embedded
from invokeclone.models.install.registration import Files, RegistrationRequest, register
from invokeclone.models.records.guard import Guard
from invokeclone.worker.cache import InvocationCache
from invokeclone.worker.engine import Engine
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.recent_images import RecentImages
from invokeclone.worker.runner import SessionRunner
from invokeclone.worker.tensors import TensorStore
from tests.families.stable_diffusion.layouts import VAE
from tests.families.stable_diffusion.test_embedded_adapters import ADAPTERS
from tests.worker.conftest import FakeChannel, Make

UNET = f"{EMBEDDED_KEY}:unet"
EMBEDDED_MODEL = {"key": EMBEDDED_KEY, "hash": "", "name": "Embedded Tiny", "base": "sd-1", "type": "main"}
Nodes = dict[str, dict[str, Any]]
Edges = list[tuple[str, str]]


class Bench:
    """A worker's runner with the embedded model, without processes."""

    def __init__(self, resources: Resources, tools: Tools, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resources = resources
        self.tools = tools
        self.folder = folder
        self.monkeypatch = monkeypatch
        self._runner = SessionRunner(tools, make_context)

    async def install(self, path: Path, **overrides: Any) -> dict[str, Any]:
        """Register a file where it is and return its identifier."""
        request = RegistrationRequest(
            path=path, source=str(path), source_type="path", overrides=overrides, files=Files.STAY
        )
        config = await register(self.resources, Guard(), request)
        return config.model_dump(mode="json", include={"key", "hash", "name", "base", "type"})

    def modify_file(self, source: Path, change: Callable[[torch.Tensor], torch.Tensor] = torch.clone) -> Path:
        """Copy a file of tensors with another first one."""
        tensors = load_file(source)
        first = next(name for name, tensor in tensors.items() if tensor.ndim > 1)
        save_file(tensors | {first: change(tensors[first])}, self.folder / source.name)
        return self.folder / source.name

    async def run(self, nodes: Nodes, edges: Edges) -> Outcome:
        """Run an item to its end."""
        item = Make().item(nodes, *edges)
        return await asyncio.to_thread(self._runner.run, item, threading.Event())

    @property
    def cache(self) -> Any:
        return self.tools.engine._cache

    def unet(self) -> Any:
        return self.cache.get(UNET, lambda: pytest.fail("it is loaded")).model


@pytest.fixture
async def bench(resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    registry.discover()
    await register_embedded(resources)
    tools = Tools(
        resources=resources,
        loop=asyncio.get_running_loop(),
        device="cpu",
        channel=FakeChannel(),
        cache=InvocationCache(0),
        tensors=TensorStore(tmp_path / "tensors", 10_000_000),
        images=RecentImages(100_000),
        engine=Engine(resources.settings, "cpu"),
    )
    return Bench(resources, tools, tmp_path, monkeypatch)


def graph() -> tuple[Nodes, Edges]:
    nodes: Nodes = {
        "model": {"type": "main_model_loader", "model": EMBEDDED_MODEL},
        "positive": {"type": "compel", "prompt": "a red circle"},
        "negative": {"type": "compel", "prompt": ""},
        "noise": {"type": "noise", "seed": 1, "width": 64, "height": 64},
        "denoise": {"type": "denoise_latents", "steps": 1},
        "image": {"type": "l2i"},
    }
    edges = [
        ("model.clip", "positive.clip"),
        ("model.clip", "negative.clip"),
        ("model.unet", "denoise.unet"),
        ("positive.conditioning", "denoise.positive_conditioning"),
        ("negative.conditioning", "denoise.negative_conditioning"),
        ("noise.noise", "denoise.noise"),
        ("denoise.latents", "image.latents"),
        ("model.vae", "image.vae"),
    ]
    return nodes, edges


def with_lora(lora: dict[str, Any]) -> tuple[Nodes, Edges]:
    nodes, edges = graph()
    edges.remove(("model.unet", "denoise.unet"))
    nodes["lora"] = {"type": "lora_loader", "lora": lora, "weight": 1}
    return nodes, [*edges, ("model.unet", "lora.unet"), ("lora.unet", "denoise.unet")]


def with_vae(vae: dict[str, Any]) -> tuple[Nodes, Edges]:
    nodes, edges = graph()
    edges.remove(("model.vae", "image.vae"))
    nodes["vae"] = {"type": "vae_loader", "vae_model": vae}
    return nodes, [*edges, ("vae.vae", "image.vae")]


def not_a_number(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    changed[0] = torch.nan
    return changed


async def lora_of_another_base(bench: Bench) -> tuple[Nodes, Edges]:
    lora = await bench.install(bench.modify_file(ADAPTERS / "color.safetensors"), name="style", base="sdxl")
    return with_lora(lora)


async def lora_that_fits_no_layer(bench: Bench) -> tuple[Nodes, Edges]:
    layer = "lora_unet_no_such_attn2_to_k"
    tensors = {f"{layer}.lora_{side}.weight": torch.ones(768, 768) for side in ("up", "down")}
    save_file(tensors, bench.folder / "style.safetensors")
    return with_lora(await bench.install(bench.folder / "style.safetensors", name="style"))


async def lora_that_is_cut_off(bench: Bench) -> tuple[Nodes, Edges]:
    path = bench.modify_file(ADAPTERS / "color.safetensors")
    lora = await bench.install(path, name="style", base="sd-1")
    path.write_bytes(path.read_bytes()[:-100])
    return with_lora(lora)


async def lora_with_nan(bench: Bench) -> tuple[Nodes, Edges]:
    path = bench.modify_file(ADAPTERS / "color.safetensors", not_a_number)
    return with_lora(await bench.install(path, name="style", base="sd-1"))


def make_vae(**changes: Any) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(**VAE | changes)


def vae_file(bench: Bench) -> Path:
    """Write an autoencoder's file with diffusers' names."""
    save_file(make_vae().state_dict(), bench.folder / "own.safetensors")
    return bench.folder / "own.safetensors"


async def vae_of_another_base(bench: Bench) -> tuple[Nodes, Edges]:
    """Autoencoders of 4 channels fit all of Stable Diffusion's; one of 8 is put where the record says that one of 4 is."""
    make_vae().save_pretrained(bench.folder / "own-xl")
    vae = await bench.install(bench.folder / "own-xl", name="own")
    make_vae(latent_channels=8).save_pretrained(bench.folder / "own-xl")
    return with_vae(vae)


async def vae_that_is_cut_off(bench: Bench) -> tuple[Nodes, Edges]:
    path = vae_file(bench)
    vae = await bench.install(path, name="own", base="sd-1")
    path.write_bytes(path.read_bytes()[:-100])
    return with_vae(vae)


async def vae_with_nan(bench: Bench) -> tuple[Nodes, Edges]:
    path = vae_file(bench)
    tensors = load_file(path)
    tensors["decoder.conv_out.bias"] = torch.full((3,), torch.nan)
    save_file(tensors, path)
    return with_vae(await bench.install(path, name="own", base="sd-1"))


async def ip_adapter_without_its_image_encoder(bench: Bench) -> tuple[Nodes, Edges]:
    tensors = {"image_proj.proj.weight": torch.ones(3072, 1024), "ip_adapter.1.to_k_ip.weight": torch.ones(320, 768)}
    save_file(tensors, bench.folder / "ip.safetensors")
    adapter = await bench.install(bench.folder / "ip.safetensors", name="ip")
    nodes, edges = graph()
    nodes["blank"] = {"type": "blank_image", "width": 64, "height": 64}
    nodes["ip"] = {"type": "ip_adapter", "ip_adapter_model": adapter, "clip_vision_model": "ViT-H", "weight": 1.0}
    return nodes, [*edges, ("blank.image", "ip.image"), ("ip.ip_adapter", "denoise.ip_adapter")]


async def sizes_that_differ(bench: Bench) -> tuple[Nodes, Edges]:
    nodes, edges = graph()
    nodes["other"] = {"type": "noise", "seed": 2, "width": 128, "height": 64}
    return nodes, [*edges, ("other.noise", "denoise.latents")]


async def out_of_memory_while_denoising(bench: Bench) -> tuple[Nodes, Edges]:
    lora = await bench.install(bench.modify_file(ADAPTERS / "color.safetensors"), name="style", base="sd-1")

    def full(*_inputs: Any, **_named: Any) -> Any:
        assert any(module._forward_hooks for module in bench.unet().modules()), "the LoRA is on"
        raise torch.OutOfMemoryError("CUDA out of memory")

    bench.monkeypatch.setattr(bench.unet(), "forward", full)
    return with_lora(lora)


async def out_of_memory_while_loading(bench: Bench) -> tuple[Nodes, Edges]:
    def full(*_inputs: Any, **_named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    bench.cache.drop(f"{EMBEDDED_KEY}:text_encoder")
    bench.monkeypatch.setattr(files, "load_folder", full)
    return graph()


NAMES_AND_REMEDY = {
    lora_of_another_base: r"the LoRA style is for sdxl models, but Embedded Tiny is a sd-1 model: select one of the same base",
    lora_that_fits_no_layer: r"the LoRA style matches no layer of this model: it was made for another base",
    lora_that_is_cut_off: r"the LoRA color\.safetensors cannot be read; download it again",
    lora_with_nan: r"the LoRA color\.safetensors is damaged: layer .* has NaN or infinite values",
    vae_of_another_base: r"this VAE needs latents of 8 channels, not 4: select a VAE of the main model's base",
    vae_that_is_cut_off: r"own cannot be read, its files may be damaged or incomplete: install it again",
    vae_with_nan: r"this VAE is damaged, it produces NaN or infinite values: install the model again",
    ip_adapter_without_its_image_encoder: (
        r"ViT-H is not installed: install h94/IP-Adapter::models/image_encoder in the model manager "
        r"and name it IP Adapter SD1\.5 Image Encoder"
    ),
    sizes_that_differ: r"latents and noise differ in size",
    out_of_memory_while_denoising: r"out of memory .*memory is full: generate smaller or fewer images",
    out_of_memory_while_loading: r"out of memory .*memory is full: generate smaller or fewer images",
}


@pytest.mark.parametrize("make", NAMES_AND_REMEDY)
async def test_bad_input_fails_only_its_item(make: Callable[[Bench], Any], bench: Bench):
    assert (await bench.run(*graph())).status == "completed"
    before = {name: value.clone() for name, value in bench.unet().state_dict().items()}
    pointers = [parameter.data_ptr() for parameter in bench.unet().parameters()]
    nodes, edges = await make(bench)
    outcome = await bench.run(nodes, edges)
    bench.monkeypatch.undo()
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert re.search(NAMES_AND_REMEDY[make], outcome.error.error_message), outcome.error.error_message
    assert not outcome.broken
    unet = bench.unet()
    assert [parameter.data_ptr() for parameter in unet.parameters()] == pointers
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
    assert [entry.key for entry in bench.cache._entries.values() if entry.locks] == []
    assert (await bench.run(*graph())).status == "completed"


async def test_a_main_model_with_nan_weights_gives_no_black_image(bench: Bench):
    await bench.run(*graph())
    bias = bench.unet().conv_out.bias
    with torch.inference_mode(mode=False):
        bias.data = torch.full_like(bias, torch.nan)
    outcome = await bench.run(*graph())
    assert outcome.error is not None
    assert "denoising produced NaN or infinite values: the model" in outcome.error.error_message


def test_the_embedded_model_exists():
    assert (EMBEDDED / "model" / "unet").is_dir()
