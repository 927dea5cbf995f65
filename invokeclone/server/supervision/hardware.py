"""Devices of this machine as reported by the operating system, known before a worker has imported torch."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

NVIDIA = Path("/proc/driver/nvidia/gpus")
WAIT_S = 10


def devices() -> list[dict[str, str]]:
    """Return the devices that workers can run on, as `{device, name}`, the CPU last. Blocks."""
    accelerators = [{"device": f"cuda:{number}", "name": name} for number, name in enumerate(_visible(_nvidia()))]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        accelerators.append({"device": "mps", "name": "MPS"})
    return [*accelerators, {"device": "cpu", "name": "CPU"}]


def _nvidia() -> list[str]:
    """Return the names of NVIDIA GPUs, from the driver's files or else from `nvidia-smi`."""
    files = sorted(NVIDIA.glob("*/information")) if NVIDIA.is_dir() else []
    if files:
        return [_model(file.read_text(encoding="utf-8", errors="replace")) for file in files]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        process = subprocess.run(  # noqa: S603  (the driver's command with constant arguments)
            [command, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in process.stdout.splitlines() if line.strip()]


def _model(text: str) -> str:
    lines = dict(line.partition(":")[::2] for line in text.splitlines())
    return lines.get("Model", "").strip() or "NVIDIA GPU"


def _visible(names: list[str]) -> list[str]:
    """Return the GPUs in the order of `CUDA_VISIBLE_DEVICES`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return names
    indices = [int(word) for word in (part.strip() for part in visible.split(",")) if word.isdecimal()]
    return [names[number] for number in indices if number < len(names)]
