"""Starts of worker processes, by a server and by the agent of a joined worker, and the delays between them."""

import sys
from collections.abc import Callable, Sequence

from invokeclone.kit.config.settings import Settings
from invokeclone.server.supervision.link import Message, WorkerLink

COMMAND = (sys.executable, "-m", "invokeclone.worker")


async def start_process(
    command: Sequence[str], device: str, settings: Settings, on_message: Callable[[Message], None]
) -> WorkerLink:
    """Start a worker process for `device`, which waits for its hello message. Raises OSError."""
    environment = {}
    if settings.pytorch_cuda_alloc_conf:
        environment["PYTORCH_CUDA_ALLOC_CONF"] = settings.pytorch_cuda_alloc_conf
    return await WorkerLink.start((*command, "--device", device), on_message, environment)


class Backoff:
    """Delays in seconds that double from `first` to `maximum`."""

    def __init__(self, first: float, maximum: float) -> None:
        self._first = first
        self._maximum = maximum
        self._next = first

    def reset(self) -> None:
        """Begin with the first delay again."""
        self._next = self._first

    def next(self) -> float:
        """Return the next delay."""
        delay, self._next = self._next, min(self._next * 2, self._maximum)
        return delay
