"""Shared state of the context's interfaces: the worker's services, the running session, and calls to the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
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
from invokeclone.users import rights, signin
from invokeclone.users.current import SYSTEM, User
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

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the event loop and wait for its result; must not be called on the loop's own thread.

        Raises CanceledException, without starting `work`, if the item of this thread's node was canceled.
        """
        try:
            checkpoint()
        except CanceledException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def wait_unless(self, canceled: Callable[[], bool], work: Coroutine[Any, Any, T]) -> T:
        """Run long `work` like `wait`, and cancel it when `canceled` returns True. Raises CanceledException."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        while True:
            with contextlib.suppress(TimeoutError):
                return future.result(POLL_INTERVAL_S)
            if future.done():
                return future.result()
            if canceled():
                future.cancel()
                checkpoint()
                raise CanceledException("the queue item was canceled")

    @cached_property
    def copies(self) -> LocalCopies:
        """Local copies of files in a storage on the network; they are removed with the tensors."""
        return LocalCopies(self.tensors.folder / "copies")

    @cached_property
    def downloads(self) -> DownloadCache:
        """The cache of files that nodes download."""
        return DownloadCache(self.resources)


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
    def user(self) -> User:
        """The item's owner, whose permissions apply to the nodes. Use it in the node thread only."""
        if self.item.user_id == SYSTEM.user_id:
            return SYSTEM

        async def find() -> User:
            async with self.tools.resources.database.read() as connection:
                return await rights.acting_user(connection, self.item.user_id)

        return self.tools.wait(find())

    def owner_may_run(self) -> bool:
        """Return whether the item's owner still has an active account. Call it in the node thread only."""
        resources = self.tools.resources
        if not resources.settings.multiuser:
            return True
        allowed = self.tools.wait(signin.may_run(resources.database, self.item.user_id))
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
