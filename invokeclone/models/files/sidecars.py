"""Sidecar files of LoRAs: `<name>.json` with description and trigger phrases, and a preview image.

Other programs write these files in slightly different formats; unreadable ones are skipped. Every function blocks.
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
    """Return `description` and `trigger_phrases` from the JSON file next to `path`, if present."""
    try:
        content = read_json(path.with_suffix(".json"))
    except FileNotFoundError:
        return {}
    except (InvalidModel, OSError) as error:
        _log.warning("the JSON file next to %s is skipped: %s", path.name, error)
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
    """Return the bytes of the preview image next to `path`, if there is one."""
    candidates = (path.with_suffix(ending) for ending in _IMAGE_SUFFIXES)
    try:
        image_file = next(
            (file for file in candidates if file.is_file() and file.stat().st_size <= _MAX_IMAGE_BYTES), None
        )
        return image_file.read_bytes() if image_file else None
    except OSError as error:
        _log.warning("the preview image next to %s is skipped: %s", path.name, error)
        return None
