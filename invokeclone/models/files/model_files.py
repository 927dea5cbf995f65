"""Headers, JSON files and integrity checks of a model, without torch and without executing code."""

import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import gguf, pickles, safetensors_header
from invokeclone.models.files.tensors import Tensor

T = TypeVar("T")

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
WEIGHTS = PICKLES | {".safetensors"}
MODEL_FILES = WEIGHTS | {".gguf", ".onnx"}
FOLDER_CONFIGS = ("model_index.json", "config.json")
_INDEX = re.compile(r"(?P<ending>\.(safetensors|bin))\.index(\.[^.]+)?\.json\Z")
MAX_LOOSE_FILES = 50
MAX_JSON_BYTES = 50_000_000


def read_header(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the scalar metadata in the header of a weight file.

    Raises InvalidModel if the file is damaged, truncated, or a pickle that could execute code.
    """
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return safetensors_header.read(path)
    if ending == ".gguf":
        return gguf.read(path)
    return pickles.read(path) if ending in PICKLES else ({}, {})


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises InvalidModel if it is too large or not valid JSON."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InvalidModel(f"{path.name} is too large")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} is not valid JSON") from error


def index_suffix(name: str) -> str | None:
    """Return the suffix of the weight files listed by an index file with this name; None if it is not an index."""
    match = _INDEX.search(name)
    return match["ending"] if match else None


def check_index(path: Path) -> None:
    """Raise InvalidModel unless a weight index names only files in its own folder with the suffix in its own name.

    Libraries pass files with any other suffix to torch.load.
    """
    content = read_json(path)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict):
        raise InvalidModel(f"{path.name} is not a weight index")
    ending = index_suffix(path.name) or ""
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name or "\\" in name or not name.endswith(ending):
            raise InvalidModel(f"{path.name} names {name!r}, which is not a {ending} file in the same folder")


class ModelFiles:
    """A file or folder that may be a model. Contents are read lazily and cached."""

    def __init__(self, path: Path) -> None:
        """Set the path; nothing is read yet."""
        self.path = path
        self._json: dict[str, dict[str, Any]] = {}
        self._stripped_tensors: dict[tuple[str, ...], dict[str, Tensor]] = {}
        self._children: dict[str, ModelFiles] = {}
        self._computed: dict[Callable[[ModelFiles], Any], Any] = {}

    @functools.cached_property
    def is_folder(self) -> bool:
        """Whether the model is a folder."""
        return self.path.is_dir()

    @property
    def name(self) -> str:
        """The name, without the suffix of a weight file."""
        weights = not self.is_folder and self.path.suffix.lower() in {".safetensors", ".bin", ".pt", ".ckpt"}
        return self.path.stem if weights else self.path.name

    @functools.cached_property
    def files(self) -> list[Path]:
        """All files of a folder, sorted, or the file itself."""
        return sorted(walk(self.path)) if self.is_folder else [self.path]

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
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
        """The scalar metadata of a single weight file; empty for a folder."""
        return self._header[1]

    def without_prefixes(self, *prefixes: str) -> Mapping[str, Tensor]:
        """Return the tensors with the first matching prefix of `prefixes` removed from each name."""
        if prefixes not in self._stripped_tensors:
            self._stripped_tensors[prefixes] = {
                name.removeprefix(next((prefix for prefix in prefixes if name.startswith(prefix)), "")): tensor
                for name, tensor in self.tensors.items()
            }
        return self._stripped_tensors[prefixes]

    def memoize(self, compute: "Callable[[ModelFiles], T]") -> "T":
        """Return `compute` of this model, which is called once: many rules need the same."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        result: T = self._computed[compute]
        return result

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; empty if it does not exist."""
        tensor = self.tensors.get(name)
        return tensor.shape if tensor else ()

    def has_prefix(self, *prefixes: str) -> bool:
        """Return whether the name of any tensor starts with one of `prefixes`."""
        return any(name.startswith(prefixes) for name in self.tensors)

    def child(self, name: str) -> "ModelFiles":
        """Return a file or folder in this folder as ModelFiles; it need not exist."""
        if name not in self._children:
            self._children[name] = ModelFiles(self.path / name)
        return self._children[name]

    def json(self, name: str) -> dict[str, Any]:
        """Return the object in the JSON file `name` of the folder; empty if it does not exist or is not an object."""
        if name not in self._json:
            path = self.path / name
            value = read_json(path) if self.is_folder and path.is_file() else {}
            self._json[name] = value if isinstance(value, dict) else {}
        return self._json[name]

    @property
    def class_name(self) -> str | None:
        """The class declared by a folder's configuration: `_class_name`, or the first of `architectures`."""
        for name in FOLDER_CONFIGS:
            config = self.json(name)
            architectures = config.get("architectures")
            first_architecture = architectures[0] if isinstance(architectures, list) and architectures else None
            declared_class = config.get("_class_name") or first_architecture
            if isinstance(declared_class, str):
                return declared_class
        return None

    def check(self) -> None:
        """Raise InvalidModel unless this can be a model and its files are complete and safe to load."""
        if not self.is_folder and not self.path.is_file():
            raise InvalidModel(f"{self.path} does not exist")
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
                f"{self.path.name} is not a model folder: it has no {_format_names(FOLDER_CONFIGS)} and no weights"
            )


def _format_names(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def walk(folder: Path) -> Iterator[Path]:
    """Yield every non-hidden file under `folder`, following each link to a folder once."""
    visited: set[Path] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = Path(os.path.realpath(parent))
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if not name.startswith(".") and Path(parent, name).is_file())
