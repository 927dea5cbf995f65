"""Search of a folder for files and folders that may be models. Every function blocks."""

import os
from collections.abc import Iterator
from pathlib import Path

from invokeclone.kit.files import paths
from invokeclone.models.files.model_files import FOLDER_CONFIGS, MODEL_FILES

FOLDER_MARKERS = {
    *FOLDER_CONFIGS,
    "learned_embeds.bin",
    "pytorch_lora_weights.bin",
    "image_encoder.txt",
}
"""Files that mark a folder as one model."""

_MAX_DEPTH = 20


def is_one_model(folder: Path) -> bool:
    """Return whether the files in a folder mark it as one model."""
    return any(paths.exists(folder / name) for name in FOLDER_MARKERS)


def find(folder: Path) -> list[Path]:
    """Return the model files and model folders under `folder`, sorted; or `folder` itself if it is one model.

    Hidden entries, unreadable folders, and names that are not valid UTF-8 are skipped.
    """
    return sorted(_find(folder, 0, set()))


def _find(folder: Path, depth: int, visited: set[Path]) -> Iterator[Path]:
    real = paths.real(folder)
    if depth > _MAX_DEPTH or real in visited:
        return
    visited.add(real)
    try:
        entries = [
            entry for entry in os.scandir(folder) if not entry.name.startswith(".") and paths.is_utf8(Path(entry.name))
        ]
    except OSError:
        return
    if any(entry.name in FOLDER_MARKERS for entry in entries):
        yield folder
        return
    for entry in entries:
        if _is_folder(entry):
            yield from _find(Path(entry.path), depth + 1, visited)
        elif Path(entry.name).suffix.lower() in MODEL_FILES:
            yield Path(entry.path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
