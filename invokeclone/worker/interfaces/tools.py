"""What the faces of the context work with: the worker's long-lived parts, and the bridge from the node thread to its loop.

It holds things together and does nothing by itself.
"""

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
from invokeclone.worker.recent_images import RecentImages
from invokeclone.worker.stats import SessionStats
from invokeclone.worker.tensors import TensorStore

T = TypeVar("T")

_log = log.get("worker")


@dataclass(frozen=True)
class Tools:
    """The parts that outlive a queue item."""

    resources: Resources
    loop: asyncio.AbstractEventLoop
    device: str
    channel: Channel
    cache: InvocationCache
    tensors: TensorStore
    images: RecentImages
    engine: Engine

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the event loop and wait for it here; never call it on the loop's own thread.

        Raises CanceledException, with nothing begun, when the item of this thread's node was canceled.
        """
        try:
            checkpoint()
        except CanceledException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def wait_unless(self, canceled: Callable[[], bool], work: Coroutine[Any, Any, T]) -> T:
        """Do the same with work that takes long, which is ended when the item is canceled. Raises CanceledException."""
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
    def downloads(self) -> DownloadCache:
        """What nodes fetch from the web."""
        return DownloadCache(self.resources)


@dataclass
class Session:
    """The parts that live as long as one queue item's run."""

    tools: Tools
    item: ClaimedItem
    state: GraphExecutionState
    canceled: threading.Event
    stats: SessionStats = field(default_factory=SessionStats)
    models: dict[str, Any] = field(default_factory=dict)
    """Model records met so far, by key: each is read from the database once an item."""

    @cached_property
    def user(self) -> User:
        """The user whom the item belongs to: nodes see and change what that user may. Call it in the node thread."""
        if self.item.user_id == SYSTEM.user_id:
            return SYSTEM

        async def find() -> User:
            async with self.tools.resources.database.read() as connection:
                return await rights.acting_user(connection, self.item.user_id)

        return self.tools.wait(find())

    def owner_may_run(self) -> bool:
        """Tell whether the item's owner still has an account to run it for. Call it in the node thread."""
        resources = self.tools.resources
        if not resources.settings.multiuser:
            return True
        allowed = self.tools.wait(signin.may_run(resources.database, self.item.user_id))
        if not allowed:
            _log.warning("item %s stops: its owner %s has no active account", self.item.item_id, self.item.user_id)
        return allowed

    @cached_property
    def graph_json(self) -> str:
        """The graph as it was enqueued (with the batch's values), for embedding into images."""
        return orjson.dumps(orjson.loads(self.item.session)["graph"]).decode()

    @cached_property
    def queue_item(self) -> "QueueItem":
        """The item as nodes see it."""
        return QueueItem(self)


class QueueItem:
    """A queue item as nodes know it: the row's columns, with `session` and `workflow` as objects."""

    def __init__(self, session: Session) -> None:
        """Show `session`'s item."""
        self._item = session.item
        self.session = session.state

    @cached_property
    def workflow(self) -> Any:
        """The workflow as plain data, or None."""
        return orjson.loads(self._item.workflow) if self._item.workflow else None

    def __getattr__(self, name: str) -> Any:
        """Return a column of the row."""
        return getattr(self._item, name)
