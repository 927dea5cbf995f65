"""Fonts in the user's fonts folder: listing families and resolving font paths.

Symbolic links are ignored everywhere: files outside the folder are not served.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from invokeclone.kit.files.storage import safe_join
from invokeclone.utilities.errors import FontNotFound, NotAFont
from invokeclone.utilities.schemas import UserFont, UserFontFace, UserFontsResponse

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont

MEDIA_TYPES = {".ttf": "font/ttf", ".otf": "font/otf", ".woff": "font/woff", ".woff2": "font/woff2"}
ADDRESS = "api/v1/utilities/fonts"
REGULAR = 400
LARGEST = 64 * 1024 * 1024
"""Size in bytes up to which a font file is parsed; a larger one is listed by its file name."""

FAMILY_NAMES = (16, 1)
"""Ids of the family name in the name table: typographic family, and legacy family."""

ITALIC = 1


@dataclass(frozen=True)
class Face:
    """Family, weight and style of a font file."""

    family: str
    weight: int = REGULAR
    style: str = "normal"


def families(folder: Path) -> UserFontsResponse:
    """Return the families in a folder and its subfolders, by name. Blocking: it reads every file that is not cached."""
    faces_by_family: dict[str, list[tuple[str, Face]]] = {}
    for file in _files(folder):
        status = file.stat()
        face = _face(file, status.st_mtime_ns, status.st_size)
        faces_by_family.setdefault(face.family.casefold(), []).append((file.relative_to(folder).as_posix(), face))
    return UserFontsResponse(fonts=[_family(key, faces) for key, faces in sorted(faces_by_family.items())])


def find(folder: Path, name: str) -> tuple[Path, str]:
    """Return a font file by its path relative to the folder, and its media type; raises NotAFont, FontNotFound."""
    parts = PurePosixPath(name).parts
    media_type = MEDIA_TYPES.get(PurePosixPath(name).suffix.lower())
    if media_type is None:
        raise NotAFont("the name of a font file must end in " + ", ".join(MEDIA_TYPES))
    if "\\" in name or ".." in parts or name.startswith("/"):
        raise NotAFont(f"not in the fonts folder: {name!r}")
    safe_join(folder, name)
    path = folder
    for part in parts:
        path /= part
        if path.is_symlink():
            raise FontNotFound(f"no font is named {name!r}")
    if not path.is_file():
        raise FontNotFound(f"no font is named {name!r}")
    return path, media_type


def _files(folder: Path) -> Iterator[Path]:
    """Yield the font files, sorted, without following links."""
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for entry in entries:
        if entry.is_symlink() or not entry.name.isprintable():
            continue
        if entry.is_dir():
            yield from _files(entry)
        elif entry.suffix.lower() in MEDIA_TYPES and entry.is_file():
            yield entry


def _family(key: str, faces: list[tuple[str, Face]]) -> UserFont:
    faces = sorted(faces, key=lambda entry: (entry[1].style != "normal", abs(entry[1].weight - REGULAR), entry[0]))
    path, first = faces[0]
    return UserFont(
        id=f"user:{key}",
        family=first.family,
        label=first.family,
        path=path,
        url=_url(path),
        faces=[
            UserFontFace(path=path, url=_url(path), weight=face.weight, style=face.style)
            for path, face in sorted(faces, key=lambda entry: (entry[1].weight, entry[1].style != "normal", entry[0]))
        ],
    )


def _url(path: str) -> str:
    return f"{ADDRESS}/{quote(path)}"


@lru_cache(maxsize=4096)
def _face(file: Path, _changed_at: int, size: int) -> Face:
    """Return the face of a font file; an unreadable one gets its file name as the family."""
    from fontTools.ttLib import TTFont

    if size > LARGEST:
        return Face(file.stem)
    try:
        with file.open("rb") as data, TTFont(data, lazy=True) as font:
            return _read_face(font, file.stem)
    except Exception:  # noqa: BLE001  (fontTools raises many types on broken tables)
        return Face(file.stem)


def _read_face(font: "TTFont", name: str) -> Face:
    names = font.get("name")
    candidates = [names.getDebugName(number) or "" for number in FAMILY_NAMES] if names else []
    family = next((text.strip() for text in candidates if text.strip()), name)
    weight, italic = REGULAR, False
    if "OS/2" in font:
        weight = min(max(int(font["OS/2"].usWeightClass), 1), 1000)
        italic = bool(font["OS/2"].fsSelection & ITALIC)
    return Face(family[:200], weight, "italic" if italic else "normal")
