"""A model as it lies on disk, read without torch and without ever unpickling: headers of safetensors files and JSON files.

It knows forms of files and refuses to know what model has which tensors; that is in the families' rules.
"""

import functools
import itertools
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invokeclone.models.errors import InvalidModel

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
WEIGHTS = PICKLES | {".safetensors"}
MODEL_FILES = WEIGHTS | {".gguf", ".onnx"}
FOLDER_CONFIGS = ("model_index.json", "config.json")
MAX_LOOSE_FILES = 50
MAX_HEADER_BYTES = 100_000_000
MAX_JSON_BYTES = 50_000_000
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file: the name of its number type and its shape."""

    dtype: str
    shape: tuple[int, ...]


def tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor that the safetensors file at `path` declares, having checked that all its bytes are there.

    Raises InvalidModel for anything else: a truncated file, an error page saved as a model, a Git LFS pointer.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if not 0 < length <= min(size - _LENGTH.size, MAX_HEADER_BYTES):
            raise InvalidModel(f"{path.name} is not a safetensors file, or is cut off: {_guess(start)}")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        declared = {name: Tensor(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvalidModel(f"{path.name} has a damaged safetensors header") from error
    if not isinstance(end, int) or _LENGTH.size + length + end > size:
        raise InvalidModel(f"{path.name} is cut off: it has {size} bytes and declares more")
    return declared


def _guess(start: bytes) -> str:
    if start[:1] == b"<":
        return "it looks like a web page"
    if start.startswith(b"version "):
        return "it looks like a Git LFS pointer; the real file was not downloaded"
    return "its header cannot be read"


def read_json(path: Path) -> Any:
    """Return what the JSON file at `path` holds; raises InvalidModel when it cannot be read as JSON."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InvalidModel(f"{path.name} is too large")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} is not valid JSON") from error


class OnDisk:
    """A file or folder that may be a model. Everything is read when first asked for, and kept."""

    def __init__(self, path: Path) -> None:
        """Look at `path`; nothing is read yet."""
        self.path = path
        self._json: dict[str, dict[str, Any]] = {}

    @functools.cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    @property
    def name(self) -> str:
        """The name without a weight file's ending."""
        weights = not self.is_folder and self.path.suffix.lower() in {".safetensors", ".bin", ".pt", ".ckpt"}
        return self.path.stem if weights else self.path.name

    @functools.cached_property
    def files(self) -> list[Path]:
        """Every file of it, sorted; a single one for a file."""
        return sorted(walk(self.path)) if self.is_folder else [self.path]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.files)

    @functools.cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors of a single safetensors file; empty for anything else."""
        single = not self.is_folder and self.path.suffix.lower() == ".safetensors"
        return tensors(self.path) if single else {}

    def has_prefix(self, *prefixes: str) -> bool:
        """Tell whether a tensor's name begins with one of `prefixes`."""
        return any(name.startswith(prefixes) for name in self.tensors)

    def json(self, name: str) -> dict[str, Any]:
        """Return the object in the JSON file `name` of the folder; empty when there is none or it holds something else."""
        if name not in self._json:
            path = self.path / name
            value = read_json(path) if self.is_folder and path.is_file() else {}
            self._json[name] = value if isinstance(value, dict) else {}
        return self._json[name]

    @property
    def class_name(self) -> str | None:
        """The class that a folder says it is of: `_class_name`, or the first of `architectures`."""
        for name in FOLDER_CONFIGS:
            config = self.json(name)
            architectures = config.get("architectures")
            first = architectures[0] if isinstance(architectures, list) and architectures else None
            stated = config.get("_class_name") or first
            if isinstance(stated, str):
                return stated
        return None

    def check(self) -> None:
        """Raise InvalidModel unless this can be a model whose files are whole and are safe to read."""
        if not self.is_folder and not self.path.is_file():
            raise InvalidModel(f"{self.path} is no file or folder")
        if not self.is_folder and self.path.suffix.lower() not in MODEL_FILES:
            raise InvalidModel(f"{self.path.name} is not a model file: its name must end with {_listed(MODEL_FILES)}")
        if self.is_folder:
            self._check_folder()
        _check_pickles(self.files)
        for file in self.files:
            if file.suffix.lower() == ".safetensors":
                tensors(file)

    def _check_folder(self) -> None:
        if any((self.path / name).is_file() for name in FOLDER_CONFIGS):
            for name in FOLDER_CONFIGS:
                self.json(name)
            return
        if sum(1 for _ in itertools.islice(walk(self.path), MAX_LOOSE_FILES + 1)) > MAX_LOOSE_FILES:
            raise InvalidModel(
                f"{self.path.name} has more than {MAX_LOOSE_FILES} files and no {_listed(FOLDER_CONFIGS)}"
            )
        near = (file for file in self.files if len(file.relative_to(self.path).parts) <= 2)  # noqa: PLR2004
        if not any(file.suffix.lower() in MODEL_FILES for file in near):
            raise InvalidModel(
                f"{self.path.name} is a folder without a model: no {_listed(FOLDER_CONFIGS)}, no weights"
            )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _check_pickles(files: list[Path]) -> None:
    """Refuse weights that only exist as pickles: reading one can run any code, so that the server never does."""
    safe = {file.parent for file in files if file.suffix.lower() == ".safetensors"}
    for file in files:
        if file.suffix.lower() in PICKLES and file.parent not in safe and file.parent.name != "safety_checker":
            raise InvalidModel(
                f"{file.name} is a pickle file, which can run code when it is read; convert it to safetensors first"
            )


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file under `folder` that is not hidden, following links to folders once each."""
    seen: set[Path] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = Path(os.path.realpath(parent))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if not name.startswith(".") and Path(parent, name).is_file())
