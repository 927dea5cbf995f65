"""Names of node packs, whose folders are imported as Python packages."""

import importlib.util
import re
import sys
from pathlib import Path

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_RESERVED = frozenset({"invokeai", "invokeclone", "alembic", "tests", "main"})


def is_valid(name: str) -> bool:
    """Return whether a folder of this name can be a pack."""
    return bool(_NAME.fullmatch(name)) and name != "__pycache__"


def is_taken(name: str) -> bool:
    """Return whether a Python module of this name exists, which a pack would shadow."""
    if name in _RESERVED or name in sys.stdlib_module_names or name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def name_of(source: str) -> str:
    """Return the name for a pack from this URL or folder: the last path segment, with invalid characters as `_`."""
    last = re.split(r"[/\\:]", source.rstrip("/\\"))[-1].removesuffix(".git")
    return re.sub(r"[^A-Za-z0-9_-]", "_", last)


def find_packs(folder: Path) -> list[str]:
    """Return the sorted names of the packs in a folder: subfolders with an `__init__.py`."""
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry.name for entry in entries if is_valid(entry.name) and (entry / "__init__.py").is_file()]
