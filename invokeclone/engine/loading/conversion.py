"""Single files turned into folders as diffusers saves them. Families register with `@converts` what parts their pipeline has."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


class CannotConvert(ValueError):
    """The file is not one that can be turned into a folder; the text says why."""


@dataclass(frozen=True)
class SourceCheckpoint:
    """A single file, and what is known of it."""

    path: Path
    dtype: torch.dtype
    prediction_type: str


@dataclass(frozen=True)
class Pipeline:
    """What a folder is made of: a function for each part with weights, so that only one is in memory at a time."""

    class_name: str
    parts: Mapping[str, Callable[[], Any]]
    scheduler: dict[str, Any]
    settings: Mapping[str, Any]
    """Further fields of model_index.json."""


Converter = Callable[[SourceCheckpoint], Pipeline]
_converters: dict[BaseModelType, Converter] = {}


def converts(base: BaseModelType) -> Callable[[Converter], Converter]:
    """Register what a family's single files are made of."""

    def register(converter: Converter) -> Converter:
        _converters[base] = converter
        return converter

    return register


def convert(base: BaseModelType, checkpoint: SourceCheckpoint, target: Path) -> None:
    """Write the folder `target` of the single file. Raises CannotConvert, OSError; then what is written is of no use."""
    for _ in discovery.modules("conversion"):
        pass  # importing registers
    if base not in _converters:
        raise CannotConvert(f"models of {base} cannot be converted")
    pipeline = _converters[base](checkpoint)
    index: dict[str, Any] = {"_class_name": pipeline.class_name, **pipeline.settings}
    for name, make in pipeline.parts.items():
        try:
            part = make()
        except (
            ValueError,
            KeyError,
            RuntimeError,
        ) as error:  # what diffusers and torch raise for weights that don't fit
            raise CannotConvert(f"its {name} cannot be read: {error}") from error
        part.save_pretrained(target / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
        del part
    index["scheduler"] = ["diffusers", pipeline.scheduler["_class_name"]]
    _write(target / "scheduler" / "scheduler_config.json", pipeline.scheduler)
    _write(target / "model_index.json", index)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
