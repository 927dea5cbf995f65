"""Measure loading and steps of large files of each kind.

Run by `scripts/benchmark.py --only loading`. Writes files of the published FLUX.1 width with fewer blocks and random
weights into a temporary folder, one after the other, and loads each in a process of its own.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
KINDS = ("bfloat16", "float16", "Q8_0", "Q4_0")
_LARGE = {"num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 4096, "pooled_projection_dim": 768}
"""FLUX.1's width with fewer blocks: about 1.0e9 weights."""
_GGUF_BLOCK = {"Q8_0": (32, 34), "Q4_0": (32, 18)}
"""Values and bytes of a block, which begins with a float16 scale."""


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
