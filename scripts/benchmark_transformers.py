"""Measure transformers: our denoising against diffusers' pipelines, and loading and steps of large files of each kind.

Run by `scripts/benchmark.py --only transformers,loading`. Weights are random. The first compares CPU time per run with
the same weights, noise, embeddings and number format; runs alternate. The second writes files of the published FLUX.1
width with fewer blocks into a temporary folder, one after the other, and loads each in a process of its own.
"""

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
KINDS = ("bfloat16", "float16", "Q8_0", "Q4_0")
SIZE, STEPS, REPEATS = 256, 4, 7
"""Side of the image in pixels, steps of a run, and compared runs of each side."""
_LARGE = {"num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 4096, "pooled_projection_dim": 768}
"""FLUX.1's width with fewer blocks: about 1.0e9 weights."""
_GGUF_BLOCK = {"Q8_0": (32, 34), "Q4_0": (32, 18)}
"""Values and bytes of a block, which begins with a float16 scale."""
Run = Callable[[], Any]


def compare() -> dict[str, float]:
    """Return the CPU time of a run in ms by us and by diffusers, and their ratio, for each family."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = {}
    for name, make in (("flux", _flux), ("sd3", _sd3), ("cogview4", _cogview4)):
        ours, theirs = make()
        difference = float((ours() - theirs()).abs().max())
        if difference > 1e-3:
            raise SystemExit(f"{name}: the latents differ by {difference}")
        times: dict[Run, list[float]] = {ours: [], theirs: []}
        for _ in range(REPEATS):
            for run, spent in times.items():
                started = time.process_time()
                run()
                spent.append(1000 * (time.process_time() - started))
        result[f"{name}_ms"], result[f"{name}_diffusers_ms"] = (statistics.median(spent) for spent in times.values())
        pairs = zip(times[ours], times[theirs], strict=True)
        result[f"{name}_ratio"] = statistics.median(first / second for first, second in pairs)
    return result


def _flux() -> tuple[Run, Run]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    from invokeclone.components.flux.tokens import pack, unpack
    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.engine.schedules import flow
    from invokeclone.families.flux import pipeline
    from invokeclone.families.flux.conditioning import FluxConditioning

    net = FluxTransformer2DModel(
        num_layers=4, num_single_layers=8, attention_head_dim=64, num_attention_heads=8, joint_attention_dim=256,
        pooled_projection_dim=128, guidance_embeds=True, axes_dims_rope=(16, 24, 24),
    ).eval()  # fmt: skip
    text, pooled, noise = torch.randn(1, 128, 256), torch.randn(1, 128), torch.randn(1, 16, SIZE // 8, SIZE // 8)
    levels = flow.shift_levels(flow.even_levels(STEPS), flow.shift_by_tokens(SIZE * SIZE // 256))
    diffusers = FluxPipeline(FlowMatchEulerDiscreteScheduler(shift=1.0), None, None, None, None, None, net)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, noise=noise)
        task = pipeline.FluxDenoiseTask(inputs, FluxConditioning(text, pooled), None, guidance=3.5)
        return pipeline.denoise(net, task, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        packed = diffusers(
            prompt_embeds=text, pooled_prompt_embeds=pooled, latents=pack(noise), sigmas=levels[:-1],
            num_inference_steps=STEPS, guidance_scale=3.5, width=SIZE, height=SIZE, output_type="latent",
        ).images  # fmt: skip
        return unpack(packed, SIZE // 8, SIZE // 8)

    return ours, theirs


def _sd3() -> tuple[Run, Run]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.families.sd3 import pipeline
    from invokeclone.families.sd3.conditioning import SD3ConditioningInfo

    net = SD3Transformer2DModel(
        sample_size=64, num_layers=8, attention_head_dim=64, num_attention_heads=8, joint_attention_dim=256,
        caption_projection_dim=512, pooled_projection_dim=192, pos_embed_max_size=64, out_channels=16,
    ).eval()  # fmt: skip
    prompts = [
        SD3ConditioningInfo(
            torch.randn(1, 64), torch.randn(1, 77, 64), torch.randn(1, 128), torch.randn(1, 77, 128),
            torch.randn(1, 128, 256),
        )
        for _ in range(2)
    ]  # fmt: skip
    joined = [pipeline.join(info, net.config, "positive") for info in prompts]
    noise = torch.randn(1, 16, SIZE // 8, SIZE // 8)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    diffusers = StableDiffusion3Pipeline(net, scheduler, None, None, None, None, None, None, None)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, cfg_scale=4.0, noise=noise)
        return pipeline.denoise(net, prompts[0], prompts[1], inputs, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=joined[0].embeds, pooled_prompt_embeds=joined[0].pooled,
            negative_prompt_embeds=joined[1].embeds, negative_pooled_prompt_embeds=joined[1].pooled,
            latents=noise, sigmas=[1.0, 0.75, 0.5, 0.25], guidance_scale=4.0, width=SIZE, height=SIZE,
            output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


def _cogview4() -> tuple[Run, Run]:
    import torch
    from diffusers import CogView4Pipeline, FlowMatchEulerDiscreteScheduler
    from diffusers.models.transformers.transformer_cogview4 import CogView4Transformer2DModel

    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.families.cogview4 import pipeline
    from invokeclone.families.cogview4.conditioning import CogView4ConditioningInfo

    net = CogView4Transformer2DModel(
        num_layers=8, attention_head_dim=64, num_attention_heads=8, text_embed_dim=256, time_embed_dim=128,
        condition_dim=64, pos_embed_max_size=64, sample_size=64, rope_axes_dim=(64, 64),
    ).eval()  # fmt: skip
    prompts = [torch.randn(1, tokens, 256) for tokens in (128, 16)]
    noise = torch.randn(1, 16, SIZE // 8, SIZE // 8)
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, max_image_seq_len=4096, use_dynamic_shifting=True,
        time_shift_type="linear",
    )  # fmt: skip
    diffusers = CogView4Pipeline(None, None, None, net, scheduler)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, cfg_scale=4.0, noise=noise)
        sides = [CogView4ConditioningInfo(prompt) for prompt in prompts]
        return pipeline.denoise(net, sides[0], sides[1], inputs, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=prompts[0], negative_prompt_embeds=prompts[1], latents=noise,
            timesteps=[1000, 750, 500, 250], sigmas=[1.0, 0.75, 0.5, 0.25], guidance_scale=4.0, width=SIZE, height=SIZE,
            output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


def measure_loading() -> dict[str, float]:
    """Return size, load time, peak memory above that before the load, and CPU time per step for a file of each kind."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / f"{kind}.{'gguf' if kind in _GGUF_BLOCK else 'safetensors'}"
            if shutil.disk_usage(folder).free < 6 * 2**30:
                raise SystemExit(f"{folder} needs 6 GiB of free space")
            subprocess.run([sys.executable, __file__, "--write", str(path)], check=True)
            child = subprocess.run([sys.executable, __file__, "--load", str(path)], check=True, capture_output=True)
            measured = json.loads(child.stdout.splitlines()[-1])
            result |= {f"{kind}_{name}": value for name, value in measured.items()}
            path.unlink()
    return result


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of a large FLUX.1 file, with Black Forest Labs' names."""
    import torch
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    from tests.tiny_flux import original_names

    with torch.device("meta"):
        net = FluxTransformer2DModel(**_LARGE, guidance_embeds=True)
    for name, tensor in original_names(net.state_dict()).items():
        yield name, tuple(tensor.shape)


def write(path: Path) -> None:
    """Write a file of the kind that its name says, tensor by tensor."""
    (_write_gguf if path.suffix == ".gguf" else _write_safetensors)(path, path.stem)


def _write_safetensors(path: Path, kind: str) -> None:
    import math

    import torch

    entries: dict[str, Any] = {}
    end = 0
    for name, shape in _shapes():
        begin, end = end, end + 2 * math.prod(shape)
        entries[name] = {
            "dtype": {"bfloat16": "BF16", "float16": "F16"}[kind],
            "shape": shape,
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for entry in entries.values():
            values = torch.randn(entry["shape"]).mul_(0.02).to(getattr(torch, kind))
            file.write(values.view(torch.int16).numpy().tobytes())


def _write_gguf(path: Path, kind: str) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    values, size = _GGUF_BLOCK[kind]
    number, generator = GGMLQuantizationType[kind], np.random.default_rng(0)
    shapes = dict(_shapes())
    writer = GGUFWriter(path, "flux")
    for name, shape in shapes.items():
        if len(shape) == 1:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0])
        else:
            packed = (shape[0], shape[1] // values * size)
            writer.add_tensor_info(name, packed, np.dtype(np.uint8), packed[0] * packed[1], raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for shape in shapes.values():
        if len(shape) == 1:
            writer.write_tensor_data(generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02))
            continue
        blocks = generator.integers(0, 256, (shape[0] * shape[1] // values, size), dtype=np.uint8)
        blocks[:, :2] = np.array([0.0005 if kind == "Q8_0" else 0.005], np.float16).view(np.uint8)
        writer.write_tensor_data(blocks.reshape(shape[0], -1))
    writer.close()


def load(path: Path) -> dict[str, float]:
    """Load a file as the worker does and run a few steps at 128x128, in this process."""
    import resource

    import torch

    from invokeclone.engine.cache import ModelCache
    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.engine.loading import loaders
    from invokeclone.families.flux import pipeline
    from invokeclone.families.flux.conditioning import FluxConditioning
    from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
    from invokeclone.kit.config.settings import Settings

    class Record:
        key = name = path.stem
        base, type = BaseModelType.Flux, ModelType.Main
        format = ModelFormat.GGUFQuantized if path.suffix == ".gguf" else ModelFormat.Checkpoint
        default_settings = None

    loaders.warm_up()
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel  # noqa: F401 - not measured

    cache = ModelCache(Settings(), "cpu")
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    loaded = loaders.load(cache, Record(), path, SubModelType.Transformer)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    result = {"file_mib": path.stat().st_size / 2**20, "load_wall_s": seconds, "load_peak_mib": peak / 2**20}
    with loaded as net:
        text, pooled = (
            torch.randn(1, 64, _LARGE["joint_attention_dim"]),
            torch.randn(1, _LARGE["pooled_projection_dim"]),
        )
        moments: list[float] = []
        task = pipeline.FluxDenoiseTask(FlowInputs(128, 128, 4, 1), FluxConditioning(text, pooled), None)
        pipeline.denoise(net, task, torch.device("cpu"), lambda _: moments.append(time.process_time()))
    result["step_cpu_s"] = statistics.median(end - begin for begin, end in itertools.pairwise(moments))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return result | {"run_peak_mib": peak / 2**20}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1] == "--write":
        write(Path(sys.argv[2]))
    elif sys.argv[1] == "--load":
        print(json.dumps(load(Path(sys.argv[2]))))
