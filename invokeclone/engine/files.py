"""Reading model files: tensors of a checkpoint, and the parts of a folder as diffusers and transformers save them."""

import importlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.load_request import LoadRequest
from invokeclone.models.pickles import INERT_NAMES, Inert

_LIBRARIES = ("diffusers", "transformers")
"""Whose classes a folder may name; code that comes with a model is never run."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_tensors(path: Path, prefixes: Iterable[str] = ("",)) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint whose names begin with one of `prefixes`; only those are read from safetensors.

    Of a torch file nothing but tensors is accepted; what trainers are known to store beside them is left out.
    """
    starts = tuple(prefixes)
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(starts)}  # noqa: SIM118
    with torch.serialization.safe_globals([(Inert, f"{module}.{name}") for module, name in INERT_NAMES]):
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    stored = stored.get("state_dict", stored)
    return {name: value for name, value in stored.items() if name.startswith(starts)}


def load_part(request: LoadRequest, class_name: str | None = None, *, dtype: torch.dtype | None = None) -> Any:
    """Return the part `request.submodel` of a pipeline's folder: a network, a tokenizer or a scheduler.

    Its class is the one that model_index.json names, or `class_name` where that file does not name one. Weights are those
    of the record's repo_variant where the folder has it, in `dtype` (the request's own if None), nothing is downloaded.
    Raises ValueError for a part that the model does not have.
    """
    folder = request.path / str(request.submodel)
    cls = _class_of(request.path, str(request.submodel), class_name)
    return load_folder(folder, cls, dtype or request.dtype, getattr(request.config, "repo_variant", None))


def load_folder(folder: Path, cls: Any, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Return an object of a diffusers or transformers class from the folder it was saved to; networks in `dtype`."""
    if not folder.is_dir():
        raise ValueError(
            f"the model in {folder.parent} has no part {folder.name}: select a model of the kind that the node is for"
        )
    _hide_progress_bars()
    if (config := folder / "scheduler_config.json").is_file():
        return cls.from_config(read_json(config))
    if not (folder / "config.json").is_file():
        return cls.from_pretrained(folder, local_files_only=True)
    number_format = {"dtype" if cls.__module__.startswith("transformers.") else "torch_dtype": dtype}
    return cls.from_pretrained(folder, local_files_only=True, **number_format, **_weights(folder, variant)).eval()


def _class_of(model: Path, part: str, otherwise: str | None) -> Any:
    index = read_json(model / "model_index.json") if (model / "model_index.json").is_file() else {}
    library, name = index.get(part) or (None, None)
    if library is None and otherwise is not None:
        library, _, name = otherwise.partition(".")
    if library not in _LIBRARIES or not isinstance(name, str):
        raise ValueError(f"{model.name} has no part {part!r} that can be loaded")
    return getattr(importlib.import_module(library), name)


def _weights(folder: Path, variant: str | None) -> dict[str, Any]:
    """Return which of a folder's weight files to read: those of the variant, or the only ones there are; rather safetensors."""
    names = [file.name for file in folder.iterdir()]
    safe = any(name.endswith(".safetensors") for name in names)
    files = [name for name in names if name.endswith(".safetensors" if safe else ".bin")]
    variants = {name.split(".")[1].partition("-")[0] for name in files if name.count(".") > 1}
    plain = any(name.count(".") == 1 for name in files)
    known = variant if variant in variants else None if plain or not variants else min(variants)
    return {"variant": known, "use_safetensors": safe}


def _hide_progress_bars() -> None:
    """Keep progress bars out of the log."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
