"""What a loader is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings


@dataclass(frozen=True)
class LoadRequest:
    """A model, or a part of one, to be returned with its weights in RAM, in `dtype`, ready to compute (`eval()`)."""

    config: Any
    """The model's record."""
    path: Path
    """Its file or folder, absolute."""
    submodel: SubModelType | None
    dtype: torch.dtype
    device: torch.device
    settings: Settings
