"""Selection of the files of a repository to download: configurations and one set of weights per folder.

Pure functions over paths.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from invokeclone.downloads.errors import DownloadFailed
from invokeclone.graph.vocabulary.taxonomy import ModelRepoVariant
from invokeclone.models.files.model_files import PICKLES

_TEXT_SUFFIXES = {".json", ".txt", ".model", ".jinja"}
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt")
"""Suffixes of weight files, in order of preference."""
_FORMAT_SUFFIXES = {
    ModelRepoVariant.ONNX: (".onnx", ".onnx_data"),
    ModelRepoVariant.OpenVINO: (".xml", ".bin"),
    ModelRepoVariant.Flax: (".msgpack",),
}
_WEIGHT_NAME = re.compile(r"(?i)model|lora_weights|learned_embeds|adapter|^weights?\b")
"""Names of weight files that belong to a model folder; others are single-file models."""
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_VARIANT = re.compile(r"\.(fp16|fp32|bf16|non_ema)\b")
_INDEX = re.compile(r"\.index(\.\w+)?\.json$")
_PREFERRED_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")


class NothingToInstall(DownloadFailed):
    """The repository or the requested part has no model or several; the message lists its files."""


@dataclass(frozen=True, order=True)
class _WeightSet:
    """A set of weights: a file or its shards."""

    folder: str
    stem: str
    variant: str
    ending: str


def select(paths: Iterable[Path], variant: ModelRepoVariant | None, subfolder: Path | None) -> list[Path]:
    """Return the paths of the files to download, in the given order. Raises NothingToInstall.

    `subfolder` is a folder, a single file, or several of these joined with `+`.
    """
    available = list(paths)
    if subfolder is None:
        return _select_model(available, variant, "the repository")
    selected: list[Path] = []
    for part in subfolder.as_posix().split("+"):
        selected += _select_part(available, variant, PurePosixPath(part.strip("/")))
    return [path for path in available if path in set(selected)]


def _select_part(available: list[Path], variant: ModelRepoVariant | None, part: PurePosixPath) -> list[Path]:
    if Path(part) in available:
        return [Path(part)]
    part_paths = [path for path in available if path.is_relative_to(part)]
    if not part_paths:
        raise NothingToInstall(f"the repository has no {part}; its files are {_format_paths(available)}")
    return _select_model(part_paths, variant, str(part))


def _select_model(available: list[Path], variant: ModelRepoVariant | None, location: str) -> list[Path]:
    weights = _select_weights(available, variant)
    if not weights:
        return _select_single(available, location)
    texts = {path for path in available if path.suffix.lower() in _TEXT_SUFFIXES}
    selected = weights | {path for path in texts if not _INDEX.search(path.name) or _is_index_of(path, weights)}
    return [path for path in available if path in selected]


def _select_single(available: list[Path], location: str) -> list[Path]:
    """Return the only weight file, whatever its name, as a single-file model."""
    weights = [path for path in available if path.suffix.lower() in _WEIGHT_SUFFIXES]
    if len(weights) == 1:
        return weights
    several = f"has several models; specify one of them: {_format_paths(weights)}"
    raise NothingToInstall(f"{location} " + (several if weights else f"has no model, only {_format_paths(available)}"))


def _select_weights(available: list[Path], variant: ModelRepoVariant | None) -> set[Path]:
    """Return the files of the best set of weights in each folder."""
    folders: dict[str, dict[_WeightSet, list[Path]]] = defaultdict(lambda: defaultdict(list))
    forms = {ending for endings in _FORMAT_SUFFIXES.values() for ending in endings} | set(_WEIGHT_SUFFIXES)
    for path in available:
        if path.suffix.lower() in forms and _WEIGHT_NAME.search(path.stem):
            weight_set = _weight_set_of(path)
            folders[weight_set.folder][weight_set].append(path)
    best = [min(sets, key=lambda weights: _rank(weights, variant)) for sets in folders.values()]
    usable = [weight_set for weight_set in best if _rank(weight_set, variant)[0] < _UNUSABLE]
    return {path for weight_set in usable for path in folders[weight_set.folder][weight_set]}


def _weight_set_of(path: Path) -> _WeightSet:
    name = path.name
    match = _VARIANT.search(name)
    ending = path.suffix.lower()
    stem = _SHARD.sub("", _VARIANT.sub("", name))[: -len(ending)]
    form = next((endings[0] for endings in _FORMAT_SUFFIXES.values() if ending in endings and ending != ".bin"), ending)
    if stem.lower().startswith("openvino"):
        form = ".xml"
    return _WeightSet(path.parent.as_posix(), stem, match[1] if match else "", form)


_UNUSABLE = 9


def _rank(weight_set: _WeightSet, variant: ModelRepoVariant | None) -> tuple[int, bool, int, int, int, str]:
    """Return the sort key of a folder's sets: requested format, safety, requested precision, suffix, usual name."""
    set_format = next((kind for kind, endings in _FORMAT_SUFFIXES.items() if weight_set.ending == endings[0]), None)
    requested_format = variant if variant in _FORMAT_SUFFIXES else None
    form = (0 if set_format is requested_format else 1) if set_format in {requested_format, None} else _UNUSABLE
    preferred_numbers = {ModelRepoVariant.FP16: ("fp16", "bf16"), ModelRepoVariant.FP32: ("fp32",)}.get(variant, ())  # type: ignore[arg-type]
    numbers = (*preferred_numbers, "", "fp32", "fp16", "bf16", "non_ema").index(weight_set.variant)
    ending = _WEIGHT_SUFFIXES.index(weight_set.ending) if weight_set.ending in _WEIGHT_SUFFIXES else 0
    name_rank = (
        _PREFERRED_NAMES.index(weight_set.stem) if weight_set.stem in _PREFERRED_NAMES else len(_PREFERRED_NAMES)
    )
    return form, weight_set.ending in PICKLES, numbers, ending, name_rank, weight_set.stem


def _is_index_of(index: Path, weights: set[Path]) -> bool:
    """Return whether an index lists the selected shards; others would mislead loaders."""
    match = _VARIANT.search(index.name)
    base_name, variant = _VARIANT.sub("", index.name), match[1] if match else ""
    shards = [_weight_set_of(path) for path in weights if path.parent == index.parent and _SHARD.search(path.name)]
    return any((f"{shard.stem}{shard.ending}.index.json", shard.variant) == (base_name, variant) for shard in shards)


def _format_paths(paths: list[Path]) -> str:
    names = [path.as_posix() for path in paths]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"  # noqa: PLR2004
