"""Which files of a repository make up the model: configurations and, in each folder, one set of weights.

Pure functions over paths; it asks nobody.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from invokeclone.downloads.errors import DownloadFailed
from invokeclone.graph.vocabulary.taxonomy import ModelRepoVariant
from invokeclone.models.files.on_disk import PICKLES

_TEXTS = {".json", ".txt", ".model", ".jinja"}
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt")
"""Endings of weights, the ones to prefer first."""
_FORMS = {
    ModelRepoVariant.ONNX: (".onnx", ".onnx_data"),
    ModelRepoVariant.OpenVINO: (".xml", ".bin"),
    ModelRepoVariant.Flax: (".msgpack",),
}
_NAMED = re.compile(r"(?i)model|lora_weights|learned_embeds|adapter|^weights?\b")
"""What a weight file is called that belongs to a folder; others are models of their own."""
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_VARIANT = re.compile(r"\.(fp16|fp32|bf16|non_ema)\b")
_INDEX = re.compile(r"\.index(\.\w+)?\.json$")
_USUAL = ("diffusion_pytorch_model", "model", "pytorch_model")


class NothingToInstall(DownloadFailed):
    """The repository, or the part that was asked for, has no model; the text says what it has."""


@dataclass(frozen=True, order=True)
class _Set:
    """One set of weights: a file, or the shards of one."""

    folder: str
    stem: str
    variant: str
    ending: str


def select(paths: Iterable[Path], variant: ModelRepoVariant | None, subfolder: Path | None) -> list[Path]:
    """Return the paths of the files to fetch, in the given order. Raises NothingToInstall.

    `subfolder` is a folder, a file (then just that), or several joined with `+`.
    """
    offered = list(paths)
    if subfolder is None:
        return _one(offered, variant, "the repository")
    wanted: list[Path] = []
    for part in subfolder.as_posix().split("+"):
        wanted += _part(offered, variant, PurePosixPath(part.strip("/")))
    return [path for path in offered if path in set(wanted)]


def _part(offered: list[Path], variant: ModelRepoVariant | None, part: PurePosixPath) -> list[Path]:
    if Path(part) in offered:
        return [Path(part)]
    inside = [path for path in offered if path.is_relative_to(part)]
    if not inside:
        raise NothingToInstall(f"the repository has no {part}; it has {_listed(offered)}")
    return _one(inside, variant, str(part))


def _one(offered: list[Path], variant: ModelRepoVariant | None, where: str) -> list[Path]:
    chosen = _weights(offered, variant)
    if not chosen:
        return _single(offered, where)
    texts = {path for path in offered if path.suffix.lower() in _TEXTS}
    kept = chosen | {path for path in texts if not _INDEX.search(path.name) or _indexes(path, chosen)}
    return [path for path in offered if path in kept]


def _single(offered: list[Path], where: str) -> list[Path]:
    """Return the one weight file, whatever its name: it is a model by itself."""
    weights = [path for path in offered if path.suffix.lower() in _WEIGHTS]
    if len(weights) == 1:
        return weights
    several = f"holds several models; name one of them: {_listed(weights)}"
    raise NothingToInstall(f"{where} " + (several if weights else f"holds no model, only {_listed(offered)}"))


def _weights(offered: list[Path], variant: ModelRepoVariant | None) -> set[Path]:
    """Return the best set of weights of each folder."""
    folders: dict[str, dict[_Set, list[Path]]] = defaultdict(lambda: defaultdict(list))
    forms = {ending for endings in _FORMS.values() for ending in endings} | set(_WEIGHTS)
    for path in offered:
        if path.suffix.lower() in forms and _NAMED.search(path.stem):
            found = _set_of(path)
            folders[found.folder][found].append(path)
    best = [min(sets, key=lambda found: _rank(found, variant)) for sets in folders.values()]
    usable = [found for found in best if _rank(found, variant)[0] < _UNUSABLE]
    return {path for found in usable for path in folders[found.folder][found]}


def _set_of(path: Path) -> _Set:
    name = path.name
    found = _VARIANT.search(name)
    ending = path.suffix.lower()
    stem = _SHARD.sub("", _VARIANT.sub("", name))[: -len(ending)]
    form = next((endings[0] for endings in _FORMS.values() if ending in endings and ending != ".bin"), ending)
    if stem.lower().startswith("openvino"):
        form = ".xml"
    return _Set(path.parent.as_posix(), stem, found[1] if found else "", form)


_UNUSABLE = 9


def _rank(found: _Set, variant: ModelRepoVariant | None) -> tuple[int, bool, int, int, int, str]:
    """Return what the sets of a folder are sorted by: wanted form, safe to read, wanted numbers, ending, usual name."""
    special = next((kind for kind, endings in _FORMS.items() if found.ending == endings[0]), None)
    wanted = variant if variant in _FORMS else None
    form = (0 if special is wanted else 1) if special in {wanted, None} else _UNUSABLE
    first = {ModelRepoVariant.FP16: ("fp16", "bf16"), ModelRepoVariant.FP32: ("fp32",)}.get(variant, ())  # type: ignore[arg-type]
    numbers = (*first, "", "fp32", "fp16", "bf16", "non_ema").index(found.variant)
    ending = _WEIGHTS.index(found.ending) if found.ending in _WEIGHTS else 0
    usual = _USUAL.index(found.stem) if found.stem in _USUAL else len(_USUAL)
    return form, found.ending in PICKLES, numbers, ending, usual, found.stem


def _indexes(index: Path, chosen: set[Path]) -> bool:
    """Tell whether an index is of the shards that were chosen: of others it would only mislead."""
    found = _VARIANT.search(index.name)
    bare, variant = _VARIANT.sub("", index.name), found[1] if found else ""
    shards = [_set_of(path) for path in chosen if path.parent == index.parent and _SHARD.search(path.name)]
    return any((f"{one.stem}{one.ending}.index.json", one.variant) == (bare, variant) for one in shards)


def _listed(paths: list[Path]) -> str:
    names = [path.as_posix() for path in paths]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"  # noqa: PLR2004
