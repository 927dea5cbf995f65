"""The training set on disk: images at two sizes, their tokenized captions, their attributes."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from transformers import CLIPTokenizer

from .drawing import draw
from .figures import SETTINGS
from .grammar import KINDS, NAMES, imagine, words
from .text import TOKENS, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from .figures import Picture

SMALL, LARGE = 128, 256
START = "start"  # in the work folder: the finished model that training continues from, if any
CAPTIONS = 4
BACKGROUNDS = ("plain", "gradient", *SETTINGS)
RELATIONS = ("", "beside", "stacked", "inside")
# Attribute columns and their numbers of values; 0 means "none" where possible.
ATTRIBUTES = {
    "kind": len(KINDS) + 1,
    "colour": len(NAMES) + 1,
    "other kind": len(KINDS) + 1,
    "other colour": len(NAMES) + 1,
    "relation": len(RELATIONS),
    "background": len(BACKGROUNDS),
    "background colour": len(NAMES) + 1,
    "count": 5,
}


@dataclass
class Dataset:
    """Images and their labels; image i of ``large`` is a larger version of image i of ``small``."""

    small: np.ndarray  # (n, 128, 128, 3) uint8
    large: np.ndarray  # (m, 256, 256, 3) uint8, m <= n
    tokens: np.ndarray  # (n, 4, 77) int64
    attributes: np.ndarray  # (n, 8) int64, columns as in ATTRIBUTES


def attributes(picture: Picture) -> list[int]:
    """Return a picture's attributes, its two objects in the order left to right, top to bottom, outer to inner."""
    things = [*picture.things[:1]] if picture.count > 1 else [*picture.things]
    if picture.relation in ("right", "below"):
        things.reverse()
    slots = [(KINDS.index(thing.kind) + 1, NAMES.index(thing.colour) + 1) for thing in things]
    slots += [(0, 0)] * (2 - len(slots))
    relation = {"left": 1, "right": 1, "above": 2, "below": 2, "inside": 3}.get(picture.relation, 0)
    colour = NAMES.index(picture.colour) + 1 if picture.colour else 0
    return [*slots[0], *slots[1], relation, BACKGROUNDS.index(picture.background), colour, picture.count]


def _draw_image(index: int, size: int) -> np.ndarray:
    return np.asarray(draw(imagine(index), size))


def _draw_all(path: Path, numbers: range, size: int, processes: int) -> np.ndarray:
    """Draw the images of these numbers into a memory-mapped file, unless it exists."""
    if not path.exists():
        partial_path = path.with_suffix(".partial.npy")
        pictures = np.lib.format.open_memmap(partial_path, "w+", np.uint8, (len(numbers), size, size, 3))
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            drawn = pool.imap(partial(_draw_image, size=size), numbers, chunksize=64)
            for index, picture in enumerate(tqdm(drawn, f"drawing {size}²", len(numbers), mininterval=5)):
                pictures[index] = picture
        pictures.flush()
        partial_path.rename(path)
    return np.load(path, mmap_mode="r")


def load_tokenizer(work: Path, number: int | None = None) -> CLIPTokenizer:
    """Copy the tokenizer of the continued model, or build one from the grammar's words. Deterministic.

    Concurrent processes pass their ``number``, so that they do not write into one file.
    """
    if (work / START).exists():
        return CLIPTokenizer.from_pretrained(work / START / "tokenizer")
    return write_tokenizer(words(), (work if number is None else work / f"rank{number}") / "tokenizer")


def encode(tokenizer: CLIPTokenizer, captions: list[str]) -> np.ndarray:
    """Encode captions as (n, 77) token numbers."""
    return np.array(tokenizer(captions, padding="max_length", truncation=True, max_length=TOKENS)["input_ids"])


def prepare(work: Path, count: int, large_count: int, processes: int, first: int = 0) -> Dataset:
    """Draw and encode the training set, images from ``first`` on, into ``work``, or load it from there."""
    small = _draw_all(work / "small.npy", range(first, first + count), SMALL, processes)
    large = _draw_all(work / "large.npy", range(first, first + large_count), LARGE, processes)
    described = work / "described.npz"
    if not described.exists():
        pictures = [imagine(index) for index in range(first, first + count)]
        tokens = encode(load_tokenizer(work), [caption for picture in pictures for caption in picture.captions])
        labels = np.array([attributes(picture) for picture in pictures])
        np.savez(described, tokens=tokens.reshape(count, CAPTIONS, TOKENS), attributes=labels)
    loaded = np.load(described)
    return Dataset(small, large, loaded["tokens"], loaded["attributes"])
