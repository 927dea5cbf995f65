"""Hashes of models: of a file's bytes, or of a folder's weight files."""

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from invokeclone.models.errors import InstallCancelled
from invokeclone.models.files.model_files import WEIGHTS, ModelFiles

_CHUNK = 16 * 2**20
_SHAKE_BYTES = {"shake_128": 32, "shake_256": 64}


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> object: ...


def hash_model(model: ModelFiles, algorithm: str, is_cancelled: Callable[[], bool] = lambda: False) -> str:
    """Return the hash of a model as `<algorithm>:<hex>`. Blocking: reads all weights.

    The hash of a folder is blake3 over the hex digests of its weight files, sorted by path. `algorithm` is a value of
    the setting `hashing_algorithm`; `random` reads nothing. Raises InstallCancelled once `is_cancelled()` returns True.
    """
    if algorithm == "random":
        return f"random:{secrets.token_hex(32)}"
    name = "blake3" if algorithm.startswith("blake3") else algorithm
    if not model.is_folder:
        return f"{name}:{_digest(model.path, algorithm, is_cancelled)}"
    weights = [file for file in model.files if file.suffix.lower() in WEIGHTS]
    digests = "".join(_digest(file, algorithm, is_cancelled) for file in weights)
    return f"{name}:{blake3(digests.encode()).hexdigest()}"


def hash_file(path: Path, is_cancelled: Callable[[], bool] = lambda: False) -> str:
    """Return the hash of a file as `blake3:<hex>`. Blocking: reads all of it. Raises InstallCancelled."""
    return f"blake3:{_digest(path, 'blake3_single', is_cancelled)}"


def _digest(path: Path, algorithm: str, is_cancelled: Callable[[], bool]) -> str:
    if algorithm.startswith("blake3"):
        fast = blake3(max_threads=blake3.AUTO if algorithm == "blake3_multi" else 1)
        _feed(fast, path, is_cancelled)
        return fast.hexdigest()
    if algorithm in _SHAKE_BYTES:
        shake = hashlib.shake_128() if algorithm == "shake_128" else hashlib.shake_256()
        _feed(shake, path, is_cancelled)
        return shake.hexdigest(_SHAKE_BYTES[algorithm])
    plain = hashlib.new(algorithm)
    _feed(plain, path, is_cancelled)
    return plain.hexdigest()


def _feed(hasher: _Hasher, path: Path, is_cancelled: Callable[[], bool]) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if is_cancelled():
                raise InstallCancelled("cancelled while hashing")
            hasher.update(chunk)
