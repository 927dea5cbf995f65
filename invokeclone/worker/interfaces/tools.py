"""Shared state of the context's interfaces: the worker's services, the running session, and calls to the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import orjson

from invokeclone.graph.checkpoints import POLL_INTERVAL_S, checkpoint
from invokeclone.graph.context import CanceledException
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.kit import log
from invokeclone.kit.resources import Resources
from invokeclone.models.install.download_cache import DownloadCache
from invokeclone.queue.rows import ClaimedItem
from invokeclone.users.current import User
from invokeclone.worker.backend.local import LocalBackend
from invokeclone.worker.backend.protocol import ItemBackend, UsedModelFiles, WorkerBackend
from invokeclone.worker.cache import InvocationCache
from invokeclone.worker.engine import Engine
from invokeclone.worker.events import Channel
from invokeclone.worker.local_copies import LocalCopies
from invokeclone.worker.recent_images import RecentImages
from invokeclone.worker.stats import SessionStats
from invokeclone.worker.tensors import TensorStore

T = TypeVar("T")

_log = log.get("worker")


@dataclass(frozen=True)
class Tools:
    """The services of a worker, which outlive a queue item."""

    resources: Resources
    loop: asyncio.AbstractEventLoop
    device: str
    channel: Channel
    cache: InvocationCache
    tensors: TensorStore
    images: RecentImages
    engine: Engine
    remote: WorkerBackend | None = None
    """The operations on the server's data, of a worker without access to its database; None: those on `resources`."""

    @cached_property
    def backend(self) -> WorkerBackend:
        """The operations on the server's data."""
        return self.remote or LocalBackend(self.resources)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the event loop and wait for its result; must not be called on the loop's own thread.

        Raises CanceledException, without starting `work`, if the item of this thread's node was canceled.
        """
        try:
            checkpoint()
        except CanceledException:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        if self.remote is None:
            return future.result()
        return _result_unless(future, lambda: False)  # the connection may be cut for long

    def wait_unless(self, canceled: Callable[[], bool], work: Coroutine[Any, Any, T]) -> T:
        """Run long `work` like `wait`, and cancel it when `canceled` returns True. Raises CanceledException."""
        return _result_unless(asyncio.run_coroutine_threadsafe(work, self.loop), canceled)

    @cached_property
    def copies(self) -> LocalCopies:
        """Local copies of files in a storage on the network; they are removed with the tensors."""
        return LocalCopies(self.tensors.folder / "copies")

    @cached_property
    def downloads(self) -> DownloadCache:
        """The cache of files that nodes download."""
        return DownloadCache(self.resources)


def _result_unless(future: Future[T], canceled: Callable[[], bool]) -> T:
    """Wait for a future, and cancel it when `canceled` returns True or the thread's item is canceled."""
    while True:
        with contextlib.suppress(TimeoutError):
            return future.result(POLL_INTERVAL_S)
        if future.done():
            return future.result()
        try:
            checkpoint()
        except CanceledException:
            future.cancel()
            raise
        if canceled():
            future.cancel()
            raise CanceledException("the queue item was canceled")


@dataclass
class Session:
    """The state of one queue item's run."""

    tools: Tools
    item: ClaimedItem
    state: GraphExecutionState
    canceled: threading.Event
    stats: SessionStats = field(default_factory=SessionStats)
    models: dict[str, Any] = field(default_factory=dict)
    """Model records by key; each is read from the database once per item."""

    @cached_property
    def backend(self) -> ItemBackend:
        """The operations on the server's data, with the rights of the item's owner."""
        return self.tools.backend.item(self.item)

    @cached_property
    def model_files(self) -> UsedModelFiles:
        """The files of models that the item uses."""
        return self.tools.backend.model_files()

    def close(self) -> None:
        """Release the files of models, at the end of the run."""
        if "model_files" in self.__dict__:
            self.model_files.close()

    @cached_property
    def user(self) -> User:
        """The item's owner, whose permissions apply to the nodes. Use it in the node thread only."""
        return self.tools.wait(self.backend.user())

    def owner_may_run(self) -> bool:
        """Return whether the item's owner still has an active account. Call it in the node thread only."""
        if not self.tools.resources.settings.multiuser:
            return True
        allowed = self.tools.wait(self.backend.owner_may_run())
        if not allowed:
            _log.warning("item %s stops: its owner %s has no active account", self.item.item_id, self.item.user_id)
        return allowed

    @cached_property
    def graph_json(self) -> str:
        """The graph as enqueued (with the batch's values), for embedding into images."""
        return orjson.dumps(orjson.loads(self.item.session)["graph"]).decode()

    @cached_property
    def queue_item(self) -> "QueueItem":
        """The item's interface for nodes."""
        return QueueItem(self)


class QueueItem:
    """A queue item as seen by nodes: the row's columns, with `session` and `workflow` as objects."""

    def __init__(self, session: Session) -> None:
        """Wrap the item of `session`."""
        self._item = session.item
        self.session = session.state

    @cached_property
    def workflow(self) -> Any:
        """The workflow as plain data, or None."""
        return orjson.loads(self._item.workflow) if self._item.workflow else None

    def __getattr__(self, name: str) -> Any:
        """Return a column of the row."""
        return getattr(self._item, name)
