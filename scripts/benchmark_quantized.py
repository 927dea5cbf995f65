"""Measure each quantized form of one FLUX.1-shaped transformer: error of a forward, load time, memory, CPU time of a forward.

The network has FLUX.1's width with one block of each kind (5e8 weights) and random weights. Each form is made of the same
bfloat16 file by a process and loaded by another one, one after the other; prints the table of docs/performance.md.

    .venv/bin/python scripts/benchmark_quantized.py --only "GGUF Q4_0;SDNQ uint4"
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_SIZES = {"num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 4096, "pooled_projection_dim": 768}
FULL = "bfloat16"
GGUF = ("GGUF Q8_0", "GGUF Q5_0", "GGUF Q4_0")
FORMS = (
    FULL, "float8", "float8, scale per row", *GGUF, "bitsandbytes NF4", "bitsandbytes LLM.int8", "SDNQ int8", "SDNQ uint4",
)  # fmt: skip
_GROUP = 64
"""Values per scale of SDNQ's 4 bits."""


def write_original(path: Path) -> None:
    """Write the bfloat16 file with Black Forest Labs' names: layers as torch initializes them, norms of ones."""
    import torch
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from safetensors.torch import save_file

    from tests.tiny_flux import original_names

    with torch.device("meta"):
        net = FluxTransformer2DModel(**_SIZES, guidance_embeds=True)
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, tensor in original_names(net.state_dict()).items():
        if tensor.ndim == 1:
            weights[name] = torch.full(tensor.shape, float(name.endswith("scale")), dtype=torch.bfloat16)
        else:
            width = tensor.shape[1] ** -0.5
            weights[name] = torch.empty(tensor.shape, dtype=torch.bfloat16).uniform_(-width, width, generator=generator)
    save_file(weights, path)


def _layer_of(form: str) -> Callable[[str, Any], dict[str, Any]]:
    """Return the function that gives the stored tensors of a layer's weight."""
    import torch

    from tests import quantized_files

    def sdnq_int8(path: str, weight: Any) -> dict[str, Any]:
        scales = weight.abs().amax(dim=1, keepdim=True) / 127
        return {f"{path}.weight": (weight / scales).round().to(torch.int8), f"{path}.scale": scales}

    return {
        FULL: lambda path, weight: {f"{path}.weight": weight.bfloat16()},
        "float8": lambda path, weight: {f"{path}.weight": weight.to(torch.float8_e4m3fn)},
        "float8, scale per row": quantized_files.float8,
        "bitsandbytes NF4": lambda path, weight: quantized_files.nf4(f"{path}.weight", weight),
        "bitsandbytes LLM.int8": quantized_files.int8,
        "SDNQ int8": sdnq_int8,
        "SDNQ uint4": lambda path, weight: quantized_files.sdnq_uint4(path, weight, _GROUP),
    }[form]


def write(form: str, original: Path, path: Path) -> None:
    """Write the file of a form."""
    from safetensors.torch import load_file, save_file

    from tests.quantized_files import write_gguf

    weights = load_file(original)
    if form in GGUF:
        write_gguf(path, weights, form.removeprefix("GGUF "))
        return
    quantize, stored = _layer_of(form), {}
    for name, value in weights.items():
        is_layer = value.ndim > 1
        stored |= quantize(name.removesuffix(".weight"), value.float()) if is_layer else {name: value}
    save_file(stored, path)


def load(path: Path, output: Path, *, is_reference: bool) -> dict[str, float]:
    """Load a file as a worker does, run the network once, and save its output. The reference computes in float32."""
    import resource

    import psutil
    import torch
    from safetensors.torch import save_file

    from invokeclone.engine.loading import loaders
    from invokeclone.engine.quantized.files import read_weights
    from invokeclone.families.flux.load import transformer_of

    loaders.warm_up()
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel  # noqa: F401 - not measured

    torch.set_num_threads(1)
    dtype = torch.float32 if is_reference else torch.bfloat16
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    net = transformer_of(read_weights(path), dtype, path.name)
    seconds = time.perf_counter() - started
    load_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    generator = torch.Generator().manual_seed(1)
    tokens, text, pooled = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((1, 64, 64), (1, 64, 4096), (1, 768))
    )
    rows = torch.arange(64)
    places = torch.stack([rows * 0, rows // 8, rows % 8], dim=1).to(dtype)
    spent = time.process_time()
    with torch.inference_mode():
        result = net(
            hidden_states=tokens, encoder_hidden_states=text, pooled_projections=pooled, img_ids=places,
            timestep=torch.tensor([0.5], dtype=dtype), guidance=torch.tensor([3.5], dtype=dtype),
            txt_ids=torch.zeros(64, 3, dtype=dtype), return_dict=False,
        )[0]  # fmt: skip
    spent = time.process_time() - spent
    save_file({"output": result.float().contiguous()}, output)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    mib = 2**20
    return {
        "file_mib": path.stat().st_size / mib, "load_wall_s": seconds, "load_peak_mib": load_peak / mib,
        "forward_cpu_s": spent, "run_peak_mib": peak / mib,
    }  # fmt: skip


def measure(forms: list[str]) -> None:
    """Print a row of the table for each form.

    This process stays small: the system counts its memory in the peak of each process that it starts.
    """
    print("| form | file | load, wall | memory for loading | with a forward | forward at 128², CPU time | error |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "original.safetensors"
        subprocess.run([sys.executable, __file__, "--original", str(original)], check=True)
        expected, _ = _run(original, "--reference")
        for form in forms:
            path = Path(folder) / f"form.{'gguf' if form in GGUF else 'safetensors'}"
            subprocess.run([sys.executable, __file__, "--write", form, str(original), str(path)], check=True)
            result, figures = _run(path)
            path.unlink()
            error = float((result - expected).norm() / expected.norm())
            print(
                f"| {form} | {figures['file_mib']:.0f} MiB | {figures['load_wall_s']:.1f} s | {figures['load_peak_mib']:.0f} MiB "
                f"| {figures['run_peak_mib']:.0f} MiB | {figures['forward_cpu_s']:.2f} s | {error:.4f} |",
                flush=True,
            )


def _run(path: Path, *options: str) -> tuple[Any, dict[str, float]]:
    """Return the network's output and the figures of a process that loads a file."""
    from safetensors.torch import load_file

    output = path.with_name("output.safetensors")
    command = [sys.executable, __file__, "--load", str(path), str(output), *options]
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return load_file(output)["output"], figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=";".join(FORMS), help="forms, separated by semicolons")
    parser.add_argument("--original", help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.original:
        write_original(Path(options.original))
    elif options.write:
        write(options.write[0], *map(Path, options.write[1:]))
    elif options.load:
        print(json.dumps(load(*map(Path, options.load), is_reference=options.reference)))
    else:
        measure(options.only.split(";"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
