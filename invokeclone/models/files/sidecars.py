"""What may lie beside a LoRA's file: `<name>.json` with a description and trigger words, and a picture. All of it blocks.

Other programs write these files, each a little differently; what cannot be read is left out.
"""

from pathlib import Path
from typing import Any

from invokeclone.kit import log
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.on_disk import read_json

_log = log.get("models")
_WORDS = ("trigger_phrases", "trigger_words", "trainedWords", "activation text")
_PICTURES = (".preview.png", ".png", ".jpg", ".jpeg", ".webp")
_MAX_PICTURE_BYTES = 50_000_000


def fields(path: Path) -> dict[str, Any]:
    """Return what the JSON file beside `path` says: `description` and `trigger_phrases`, those that it has."""
    try:
        content = read_json(path.with_suffix(".json"))
    except FileNotFoundError:
        return {}
    except (InvalidModel, OSError) as error:
        _log.warning("the notes beside %s are left out: %s", path.name, error)
        return {}
    if not isinstance(content, dict):
        return {}
    description, words = content.get("description"), _words(content)
    found: dict[str, Any] = {"description": description} if isinstance(description, str) and description else {}
    return found | ({"trigger_phrases": words} if words else {})


def _words(content: dict[str, Any]) -> list[str]:
    stated: Any = next((content[name] for name in _WORDS if content.get(name)), [])
    words = stated.split(",") if isinstance(stated, str) else stated if isinstance(stated, list) else []
    return list(dict.fromkeys(word.strip() for word in words if isinstance(word, str) and word.strip()))


def picture(path: Path) -> bytes | None:
    """Return the picture beside `path`, if there is one."""
    beside = (path.with_suffix(ending) for ending in _PICTURES)
    try:
        found = next((file for file in beside if file.is_file() and file.stat().st_size <= _MAX_PICTURE_BYTES), None)
        return found.read_bytes() if found else None
    except OSError as error:
        _log.warning("the picture beside %s is left out: %s", path.name, error)
        return None
