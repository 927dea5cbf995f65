"""Tiny image-to-image models for spandrel, and where the tests find spandrel."""

import os
import runpy
import sys
from pathlib import Path

import pytest

SPANDREL = Path(__file__).parents[1] / ".cache" / "spandrel"
"""Where `scripts/test` installs spandrel, without the torchvision that it depends on."""
STAND_INS = Path(__file__).parent / "stand_ins"


def require_spandrel() -> None:
    """Make spandrel importable here and in processes started later, or skip the test."""
    if not SPANDREL.is_dir():
        pytest.skip("spandrel is not in .cache/spandrel (scripts/test fetches it)")
    if str(SPANDREL) not in sys.path:
        sys.path.append(str(SPANDREL))
        runpy.run_path(str(STAND_INS / "sitecustomize.py"))


def search_path() -> str:
    """Return a PYTHONPATH with which other processes find spandrel."""
    return os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(SPANDREL), str(STAND_INS)]))


def write_esrgan(path: Path, *, scale: int = 2, seed: int = 0) -> None:
    """Write a Real-ESRGAN with 8 channels and one block, in the form in which the published ones are."""
    import torch
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(seed)
    network = ESRGAN(num_filters=8, num_blocks=1, scale=scale)
    torch.save({"params_ema": network.state_dict()}, path)
