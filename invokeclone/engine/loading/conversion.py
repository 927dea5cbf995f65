"""Conversion of single files to diffusers folders. Families register the parts of their pipelines with `@converts`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


class CannotConvert(ValueError):
    """The file cannot be converted to a folder; the text says why."""


@dataclass(frozen=True)
class SourceCheckpoint:
    """A single file and its known properties."""

    path: Path
    dtype: torch.dtype
    prediction_type: str


@dataclass(frozen=True)
class Pipeline:
    """The parts of a folder: one function per part with weights, so that only one part is in memory at a time."""

    class_name: str
    parts: Mapping[str, Callable[[], Any]]
    scheduler: dict[str, Any]
    settings: Mapping[str, Any]
    """Further fields of model_index.json."""


Converter = Callable[[SourceCheckpoint], Pipeline]
_converters: dict[BaseModelType, Converter] = {}


def converts(base: BaseModelType) -> Callable[[Converter], Converter]:
    """Register a family's converter."""

    def register(converter: Converter) -> Converter:
        _converters[base] = converter
        return converter

    return register


def convert(base: BaseModelType, checkpoint: SourceCheckpoint, target: Path) -> None:
    """Write the diffusers folder `target` from a single file.

    Raises CannotConvert or OSError, leaving an unusable folder.
    """
    for _ in discovery.modules("conversion"):
        pass  # registers on import
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
        ) as error:  # diffusers and torch raise these for weights that don't fit
            raise CannotConvert(f"cannot read its {name}: {error}") from error
        part.save_pretrained(target / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
        del part
    index["scheduler"] = ["diffusers", pipeline.scheduler["_class_name"]]
    _write(target / "scheduler" / "scheduler_config.json", pipeline.scheduler)
    _write(target / "model_index.json", index)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
