"""A model as it lies on disk, read without torch and without running anything in it: headers of weight files and JSON files.

It knows forms of files and refuses to know what model has which tensors; that is in the families' rules.
"""

import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import gguf, pickles, safetensors_header
from invokeclone.models.files.tensors import Tensor

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
WEIGHTS = PICKLES | {".safetensors"}
MODEL_FILES = WEIGHTS | {".gguf", ".onnx"}
FOLDER_CONFIGS = ("model_index.json", "config.json")
_INDEX = re.compile(r"(?P<ending>\.(safetensors|bin))\.index(\.[^.]+)?\.json\Z")
MAX_LOOSE_FILES = 50
MAX_JSON_BYTES = 50_000_000


def read_header(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors that the weight file at `path` declares, and its texts and numbers beside them.

    Raises InvalidModel when it is damaged, cut off, or a pickle that could run code.
    """
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return safetensors_header.read(path)
    if ending == ".gguf":
        return gguf.read(path)
    return pickles.read(path) if ending in PICKLES else ({}, {})


def read_json(path: Path) -> Any:
    """Return what the JSON file at `path` holds; raises InvalidModel when it cannot be read as JSON."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InvalidModel(f"{path.name} is too large")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} is not valid JSON") from error


def index_suffix(name: str) -> str | None:
    """Return the ending of the weight files that a file of this name is the index of, None for any other file."""
    match = _INDEX.search(name)
    return match["ending"] if match else None


def check_index(path: Path) -> None:
    """Raise InvalidModel unless an index of weights names files of its own folder, of the form that its own name says.

    Libraries give files with any other ending to torch.load.
    """
    content = read_json(path)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict):
        raise InvalidModel(f"{path.name} is not an index of weights")
    ending = index_suffix(path.name) or ""
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name or "\\" in name or not name.endswith(ending):
            raise InvalidModel(f"{path.name} names {name!r}, which is no {ending} file of this folder")


class ModelFiles:
    """A file or folder that may be a model. Everything is read when first asked for, and kept."""

    def __init__(self, path: Path) -> None:
        """Look at `path`; nothing is read yet."""
        self.path = path
        self._json: dict[str, dict[str, Any]] = {}
        self._stripped_tensors: dict[tuple[str, ...], dict[str, Tensor]] = {}
        self._children: dict[str, ModelFiles] = {}

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
    def _header(self) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        return read_header(self.path) if not self.is_folder else ({}, {})

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors of a single weight file; empty for a folder."""
        return self._header[0]

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts and numbers that a single weight file carries beside its tensors."""
        return self._header[1]

    def without_prefixes(self, *prefixes: str) -> Mapping[str, Tensor]:
        """Return the tensors under names without the first of `prefixes` that fits."""
        if prefixes not in self._stripped_tensors:
            self._stripped_tensors[prefixes] = {
                name.removeprefix(next((prefix for prefix in prefixes if name.startswith(prefix)), "")): tensor
                for name, tensor in self.tensors.items()
            }
        return self._stripped_tensors[prefixes]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; empty when there is none of this name."""
        tensor = self.tensors.get(name)
        return tensor.shape if tensor else ()

    def has_prefix(self, *prefixes: str) -> bool:
        """Tell whether a tensor's name begins with one of `prefixes`."""
        return any(name.startswith(prefixes) for name in self.tensors)

    def child(self, name: str) -> "ModelFiles":
        """Return a file or folder of this folder as a model of its own; it needs not be there."""
        if name not in self._children:
            self._children[name] = ModelFiles(self.path / name)
        return self._children[name]

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
            first_architecture = architectures[0] if isinstance(architectures, list) and architectures else None
            declared_class = config.get("_class_name") or first_architecture
            if isinstance(declared_class, str):
                return declared_class
        return None

    def check(self) -> None:
        """Raise InvalidModel unless this can be a model whose files are whole and are safe to read."""
        if not self.is_folder and not self.path.is_file():
            raise InvalidModel(f"{self.path} is no file or folder")
        if not self.is_folder and self.path.suffix.lower() not in MODEL_FILES:
            raise InvalidModel(
                f"{self.path.name} is not a model file: its name must end with {_format_names(MODEL_FILES)}"
            )
        if self.is_folder:
            self._check_folder()
        if not self.is_folder:
            self._header  # noqa: B018  (reading it is the check)
            return
        safetensors_folders = {file.parent for file in self.files if file.suffix.lower() == ".safetensors"}
        for file in self.files:
            if index_suffix(file.name):
                check_index(file)
            if file.suffix.lower() not in PICKLES or (
                file.parent not in safetensors_folders and file.parent.name != "safety_checker"
            ):
                read_header(file)

    def _check_folder(self) -> None:
        if any((self.path / name).is_file() for name in FOLDER_CONFIGS):
            for name in FOLDER_CONFIGS:
                self.json(name)
            return
        if sum(1 for _ in itertools.islice(walk(self.path), MAX_LOOSE_FILES + 1)) > MAX_LOOSE_FILES:
            raise InvalidModel(
                f"{self.path.name} has more than {MAX_LOOSE_FILES} files and no {_format_names(FOLDER_CONFIGS)}"
            )
        shallow_files = (file for file in self.files if len(file.relative_to(self.path).parts) <= 2)  # noqa: PLR2004
        if not any(file.suffix.lower() in MODEL_FILES for file in shallow_files):
            raise InvalidModel(
                f"{self.path.name} is a folder without a model: no {_format_names(FOLDER_CONFIGS)}, no weights"
            )


def _format_names(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file under `folder` that is not hidden, following links to folders once each."""
    visited: set[Path] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = Path(os.path.realpath(parent))
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if not name.startswith(".") and Path(parent, name).is_file())
