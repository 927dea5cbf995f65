"""Reading of model files: tensors of a checkpoint, and parts of diffusers and transformers folders."""

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.loading import folders, torch_files
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.checkpoints import checkpoint
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import model_files

_LIBRARIES = ("diffusers", "transformers")
"""Libraries whose classes a folder may name; code that comes with a model is never run."""
_BACKEND = "pread" if hasattr(os, "pread") else "mmap"
"""How safetensors files are read: copied into memory, so that a file that is replaced later changes no loaded model."""
_KINDS = frozenset(
    {
        "diffusers.ModelMixin", "diffusers.SchedulerMixin", "transformers.PreTrainedModel",
        "transformers.PreTrainedTokenizerBase", "transformers.ImageProcessingMixin",
        "transformers.FeatureExtractionMixin", "transformers.ProcessorMixin",
    }
)  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises InvalidModel for other content."""
    content = model_files.read_json(path)
    if not isinstance(content, dict):
        raise InvalidModel(f"{path.name} does not contain a JSON object")
    return content


def read_tensors(path: Path, prefixes: Iterable[str] = ("",)) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with one of `prefixes`; from safetensors, only those are read.

    From a torch file only tensors and mappings of tensors are read, and never by torch.load.
    """
    starts = tuple(prefixes)
    if path.suffix.lower() == ".safetensors":
        from safetensors import safe_open

        tensors = {}
        with safe_open(path, framework="pt", backend=_BACKEND) as file:
            for name in file.keys():  # noqa: SIM118
                if name.startswith(starts):
                    checkpoint()
                    tensors[name] = file.get_tensor(name)
        return tensors
    stored = torch_files.read(path)
    inner = stored.get("state_dict")
    stored = inner if isinstance(inner, dict) else stored
    return {name: value for name, value in stored.items() if name.startswith(starts)}


def load_part(request: LoadRequest, class_name: str | None = None, *, dtype: torch.dtype | None = None) -> Any:
    """Return the part `request.submodel` of a pipeline folder: a network, tokenizer or scheduler.

    Its class is named by model_index.json, or by `class_name` if that file does not name one. Uses the weights of
    the record's repo_variant if the folder has them, in `dtype` (None: the request's). Never downloads. Raises
    ValueError for a part that the model does not have.
    """
    folder = request.path / str(request.submodel)
    cls = _class_of(request.path, str(request.submodel), class_name)
    return load_folder(folder, cls, dtype or request.dtype, getattr(request.config, "repo_variant", None))


def load_folder(folder: Path, cls: Any, dtype: torch.dtype | None, variant: str | None = None) -> Any:
    """Return an instance of a diffusers or transformers class from the folder it was saved to.

    Networks are in `dtype`; None keeps the number format of a transformers network's files.
    """
    if not folder.is_dir():
        raise ValueError(
            f"the model in {folder.parent} has no part {folder.name}: select a model of the kind that this node accepts"
        )
    _hide_progress_bars()
    if (config := folder / "scheduler_config.json").is_file():
        return cls.from_config(read_json(config))
    return folders.load(folder, cls, dtype, variant)


def _class_of(model: Path, part: str, otherwise: str | None) -> Any:
    index = read_json(model / "model_index.json") if (model / "model_index.json").is_file() else {}
    library, name = index.get(part) or (None, None)
    if library is None and otherwise is not None:
        library, _, name = otherwise.partition(".")
    if library not in _LIBRARIES or not isinstance(name, str):
        raise ValueError(f"{model.name} has no loadable part {part!r}")
    part_class = getattr(importlib.import_module(library), name, None)
    if not isinstance(part_class, type) or not _is_part(part_class):
        raise ValueError(
            f"{model.name} declares its {part} as {library}.{name}, which is not a network, tokenizer or sampler"
        )
    return part_class


def _is_part(cls: type) -> bool:
    """Return whether a folder may name this class.

    Pipelines and Auto classes are excluded because they look for code.
    """
    bases = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in cls.__mro__}
    return not bases.isdisjoint(_KINDS)


def _hide_progress_bars() -> None:
    """Keep progress bars out of the log."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
