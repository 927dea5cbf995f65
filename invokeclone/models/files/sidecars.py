"""What may lie beside a LoRA's file: `<name>.json` with a description and trigger words, and a picture. All of it blocks.

Other programs write these files, each a little differently; what cannot be read is left out.
"""

from pathlib import Path
from typing import Any

from invokeclone.kit import log
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import read_json

_log = log.get("models")
_TRIGGER_PHRASE_KEYS = ("trigger_phrases", "trigger_words", "trainedWords", "activation text")
_IMAGE_SUFFIXES = (".preview.png", ".png", ".jpg", ".jpeg", ".webp")
_MAX_IMAGE_BYTES = 50_000_000


def read_fields(path: Path) -> dict[str, Any]:
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
    description, phrases = content.get("description"), _trigger_phrases(content)
    values: dict[str, Any] = {"description": description} if isinstance(description, str) and description else {}
    return values | ({"trigger_phrases": phrases} if phrases else {})


def _trigger_phrases(content: dict[str, Any]) -> list[str]:
    raw_phrases: Any = next((content[name] for name in _TRIGGER_PHRASE_KEYS if content.get(name)), [])
    phrases = (
        raw_phrases.split(",") if isinstance(raw_phrases, str) else raw_phrases if isinstance(raw_phrases, list) else []
    )
    return list(dict.fromkeys(phrase.strip() for phrase in phrases if isinstance(phrase, str) and phrase.strip()))


def read_image(path: Path) -> bytes | None:
    """Return the picture beside `path`, if there is one."""
    candidates = (path.with_suffix(ending) for ending in _IMAGE_SUFFIXES)
    try:
        image_file = next(
            (file for file in candidates if file.is_file() and file.stat().st_size <= _MAX_IMAGE_BYTES), None
        )
        return image_file.read_bytes() if image_file else None
    except OSError as error:
        _log.warning("the picture beside %s is left out: %s", path.name, error)
        return None
