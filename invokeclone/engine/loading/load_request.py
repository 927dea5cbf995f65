"""The argument of loaders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings


@dataclass(frozen=True)
class LoadRequest:
    """A request to return a model, or a part of one, with its weights in RAM, in `dtype`, in evaluation mode."""

    config: Any
    """The model's record."""
    path: Path
    """Absolute path of its file or folder."""
    submodel: SubModelType | None
    dtype: torch.dtype
    device: torch.device
    settings: Settings
