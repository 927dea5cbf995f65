"""Names of files as ComfyUI's clients send them: folder, subfolder and name of an image, path of a user's file."""

import posixpath
import re
from dataclasses import dataclass
from typing import Self

from invokeclone.kit.errors import Forbidden
from invokeclone.shims.compat_api import RequestRejected

INPUT, OUTPUT, TEMP = "input", "output", "temp"
FOLDERS = (INPUT, OUTPUT, TEMP)
"""ComfyUI's folders of images."""
MAX_PART_LENGTH = 255
"""Characters of a file name or of one folder in a path."""
MAX_PATH_LENGTH = 1024
_FOLDER_SUFFIX = re.compile(rf"^(?P<path>.*) \[(?P<folder>{'|'.join(FOLDERS)})\]$", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class PathOutside(Forbidden):
    """A path leads out of the folder that it is relative to."""

    def __init__(self) -> None:
        super().__init__("the path must be relative and stay inside its folder")


@dataclass(frozen=True)
class ImageName:
    """The name of an image for a client of ComfyUI's API."""

    folder: str
    """One of FOLDERS."""
    subfolder: str
    """A relative path with `/`, or empty."""
    name: str

    @classmethod
    def parse(cls, text: str, folder: str = INPUT, subfolder: str = "") -> Self:
        """Return the name in `text`, such as `a.png`, `sub/a.png` or `a.png [output]`, which overrides `folder`.

        Raises RequestRejected or PathOutside.
        """
        if match := _FOLDER_SUFFIX.match(text):
            text, folder = match["path"], match["folder"]
        if folder not in FOLDERS:
            raise RequestRejected(f"must be one of {', '.join(FOLDERS)}", "type")
        path = normalize_path(posixpath.join(_slashes(subfolder), _slashes(text)), "filename")
        parent, _, name = path.rpartition("/")
        if not name:
            raise RequestRejected("the name of an image is missing", "filename")
        return cls(folder, parent, name)

    @property
    def path(self) -> str:
        """Subfolder and name, as a LoadImage node takes them."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name

    @property
    def fields(self) -> dict[str, str]:
        """The name as the response to an upload has it."""
        return {"name": self.name, "subfolder": self.subfolder, "type": self.folder}


def normalize_path(path: str, param: str) -> str:
    """Return a relative path without `.` and `..`; empty for the folder itself. Raises RequestRejected, PathOutside."""
    path = _slashes(path)
    if len(path) > MAX_PATH_LENGTH:
        raise RequestRejected(f"a path has at most {MAX_PATH_LENGTH} characters", param)
    if _UNPRINTABLE.search(path):
        raise RequestRejected("a path must not contain control characters", param)
    normal = posixpath.normpath(path) if path else ""
    if normal == ".." or normal.startswith(("/", "../")):
        raise PathOutside
    parts = [] if normal == "." else normal.split("/")
    if any(len(part) > MAX_PART_LENGTH for part in parts):
        raise RequestRejected(f"a name has at most {MAX_PART_LENGTH} characters", param)
    return "/".join(parts)


def _slashes(path: str) -> str:
    return path.replace("\\", "/")
