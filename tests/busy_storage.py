"""A storage whose threads all wait for it, as in an outage of its service."""

import contextlib
from collections.abc import Iterator

import pytest

from invokeclone.kit.storage import threads


@contextlib.contextmanager
def busy_storage() -> Iterator[None]:
    """Let no thread be free for calls of the storage; on the event loop."""
    slots = threads._SLOTS.get()
    borrowers = [object() for _ in range(int(slots.available_tokens))]
    for borrower in borrowers:
        slots.acquire_on_behalf_of_nowait(borrower)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "WAIT_S", 0.01)
        yield
    for borrower in borrowers:
        slots.release_on_behalf_of(borrower)
