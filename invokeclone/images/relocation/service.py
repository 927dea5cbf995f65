"""Moving all images to the subfolders of the current strategy, safe against crashes at any moment.

Images are moved in batches: the journal lists the images, the files are duplicated to the targets, the records are
updated, the origins are removed. `_settle` completes or reverts an interrupted batch from the journal. Meanwhile the
queue is paused and operations on images are refused, on all servers on the database.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.errors import AlreadyMoving, QueueNotIdle
from invokeclone.images.events import ImageMoveChangedEvent
from invokeclone.images.relocation import files as relocation
from invokeclone.images.relocation import store
from invokeclone.images.relocation.store import Move
from invokeclone.images.schemas import ImageLocation, ImageMoveStatusResponse, MoveState
from invokeclone.kit import log
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources

BATCH_SIZE = 200
"""Images per batch: at most this many have two copies after an interruption."""

MAX_NAMES_IN_ERROR = 5
MOVE_LOCK = 0x6D6F76657
"""Key of the lock that one server holds while it moves images."""
PEER_CHECK_S = 2.0
"""Seconds between checks whether another server still moves images."""
INTERRUPTED = "interrupted; the current batch is recovered, and the other images were not moved"
Operation = Literal["move_all", "recovery"]

_log = log.get("images.moves")


class _MoveIncomplete(Exception):
    """The job ends before all images are moved; the text is the reason."""


async def _new_job(connection: AsyncConnection) -> int:
    """Pause the queue and insert a job. Raises QueueNotIdle."""
    if await store.is_queue_busy(connection):
        raise QueueNotIdle
    await store.hold_queue(connection)
    return await store.add_job(connection)


class ImageMoves:
    """The moves of one server. Call `start` and `stop` with the server's startup and shutdown."""

    def __init__(self, resources: Resources) -> None:
        """Move the images of `resources`."""
        self._resources = resources
        self._operation: Operation | None = None
        self._job_id: int | None = None
        self._last_error: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._lock = contextlib.AsyncExitStack()
        self._peer: tuple[Operation, int | None] | None = None
        """What another server does: the operation and the id of its job."""
        self._peer_watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Recover from a move that a crash interrupted, before anything else uses images.

        While another server moves images, operations on images are refused instead.
        """
        async with self._resources.database.try_lock(MOVE_LOCK) as is_alone:
            async with self._resources.database.read() as connection:
                job = await store.latest_job(connection)
                has_journal = bool(await store.read_journal(connection))
            is_moving = job is not None and job.state in store.UNDER_WAY
            if is_alone and (has_journal or is_moving):
                await self._run("recovery", self._recover)
            elif is_alone:
                await self._change(store.release_queue)
            elif job is not None and is_moving:
                self._set_peer(("move_all", job.id))

    async def stop(self) -> None:
        """Stop after the current batch."""
        self._stopping = True
        if self._peer_watch is not None:
            self._peer_watch.cancel()
            await asyncio.wait([self._peer_watch])
        if self._task is not None:
            await asyncio.wait([self._task])

    async def status(self) -> ImageMoveStatusResponse:
        """Return the running operation, the latest job, and the number of images in the wrong subfolder."""
        async with self._resources.database.read() as connection:
            job = await store.latest_job(connection)
            count = await store.count_misplaced(connection, self._resources.settings.image_subfolder_strategy)
        operation, job_id = self._peer or (self._operation, self._job_id)
        return ImageMoveStatusResponse(
            is_running=operation is not None,
            operation=operation,
            active_job_id=job_id,
            latest_job=job,
            last_error=self._last_error,
            needs_move_count=count,
        )

    async def move_all(self) -> ImageMoveStatusResponse:
        """Start moving all images. Raises AlreadyMoving, QueueNotIdle."""
        await self._begin("move_all")
        try:
            async with self._resources.database.write() as connection:
                self._job_id = await _new_job(connection)
        except BaseException:
            await self._release()
            raise
        self._task = asyncio.create_task(self._run("move_all", self._move), name="image move")
        return await self.status()

    async def recover(self) -> ImageMoveStatusResponse:
        """Start recovering from an earlier job. Raises AlreadyMoving."""
        await self._begin("recovery")
        try:
            await self._change(store.hold_queue)
        except BaseException:
            await self._release()
            raise
        self._task = asyncio.create_task(self._run("recovery", self._recover), name="image move recovery")
        return await self.status()

    async def _begin(self, operation: Operation) -> None:
        """Begin an operation. Raises AlreadyMoving if this server or another one moves images."""
        if self._operation is not None or self._stopping:
            raise AlreadyMoving
        self._operation = operation
        self._resources.maintenance = True
        is_alone = False
        try:
            is_alone = await self._lock.enter_async_context(self._resources.database.try_lock(MOVE_LOCK))
        finally:
            if not is_alone:
                await self._release()
        if not is_alone:
            raise AlreadyMoving
        self._peer = None

    async def _release(self) -> None:
        self._operation = self._job_id = None
        self._resources.maintenance = self._peer is not None
        await self._lock.aclose()

    # Moves of other servers

    def listen(self, bus: Bus) -> None:
        """Refuse operations on images while another server on the database moves them."""
        bus.subscribe(self._on_event, ImageMoveChangedEvent)

    def _report(self) -> None:
        """Report the current operation to the other servers."""
        if self._resources.database.is_shared:
            event = ImageMoveChangedEvent(operation=self._operation, job_id=self._job_id, last_error=self._last_error)
            self._resources.events.emit(event)

    def _on_event(self, _kind: type[Event], payload: dict[str, Any]) -> None:
        if self._operation is None:  # else it is this server's own
            operation: Operation | None = payload["operation"]
            self._last_error = payload["last_error"]
            self._set_peer(None if operation is None else (operation, payload["job_id"]))

    def _set_peer(self, peer: tuple[Operation, int | None] | None) -> None:
        self._peer = peer
        self._resources.maintenance = peer is not None
        if peer is not None and (self._peer_watch is None or self._peer_watch.done()):
            self._peer_watch = asyncio.create_task(self._watch_peer(), name="image move of another server")

    async def _watch_peer(self) -> None:
        """Notice the end of a server that moved images, or of its connection: then its lock is free."""
        while self._peer is not None:
            await asyncio.sleep(PEER_CHECK_S)
            with contextlib.suppress(OSError, SQLAlchemyError):
                async with self._resources.database.try_lock(MOVE_LOCK) as is_free:
                    if is_free and self._peer is not None:
                        self._set_peer(None)

    async def _change(self, write: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        async with self._resources.database.write() as connection:
            await write(connection)

    async def _run(self, operation: Operation, work: Callable[[], Awaitable[None]]) -> None:
        """Run the operation, handle its errors, and resume queue and image operations."""
        self._operation = operation
        self._last_error = None
        self._report()
        try:
            await work()
        except _MoveIncomplete as error:
            await self._give_up(error)
        except (OSError, SQLAlchemyError) as error:
            _log.exception("moving images failed")
            await self._give_up(error)
        await self._change(store.release_queue)
        self._operation = self._job_id = None
        self._report()
        await self._release()

    async def _give_up(self, error: Exception) -> None:
        """Recover the current batch; if that fails too, the journal stays for the next attempt."""
        reason = self._last_error = str(error)
        _log.warning("images were not all moved: %s", reason)
        try:
            await self._change(lambda connection: store.give_up(connection, reason))
            await self._settle()
        except (OSError, SQLAlchemyError):
            _log.exception("could not recover from an interrupted move of images; the next start tries again")

    # Moving

    async def _move(self) -> None:
        """Move batches until no image is in the wrong subfolder."""
        strategy = self._resources.settings.image_subfolder_strategy
        await self._set_state("moving")
        after, emptied = 0, set[str]()
        skipped: list[str] = []
        while True:
            if self._stopping:
                raise _MoveIncomplete(INTERRUPTED)
            async with self._resources.database.write() as connection:
                misplaced, after = await store.list_misplaced(connection, strategy, after, BATCH_SIZE)
                moves = [move for move in misplaced if relocation.is_inside(move.target)]
                await store.write_journal(connection, moves)
            if not misplaced:
                break
            skipped += [move.name for move in misplaced if move not in moves] + await self._move_batch(moves)
            emptied |= {move.origin for move in moves}
        await self._set_state("moved")
        await in_thread(relocation.prune, self._resources.storage, emptied)
        if skipped:
            names = ", ".join(skipped[:MAX_NAMES_IN_ERROR])
            raise _MoveIncomplete(f"{len(skipped)} images were not moved because their files are missing: {names}")
        await self._set_state("committed")

    async def _move_batch(self, moves: list[Move]) -> list[str]:
        """Move the images in the journal; return those whose files are missing."""
        missing = await in_thread(self._duplicate, moves)
        present = [move for move in moves if move.name not in missing]
        async with self._resources.database.write() as connection:
            moved = await store.relocate(connection, [move.name for move in present])
        # A record that was not updated was deleted in the meantime: then neither copy is needed.
        old = [ImageLocation(move.name, move.origin) for move in present]
        unused = [ImageLocation(move.name, move.target) for move in present if move.name not in moved]
        await in_thread(self._clear, old + unused)
        return sorted(missing)

    def _duplicate(self, moves: list[Move]) -> set[str]:
        storage = self._resources.storage
        missing = set()
        for move in moves:
            if not relocation.duplicate(
                storage, ImageLocation(move.name, move.origin), ImageLocation(move.name, move.target)
            ):
                missing.add(move.name)
        relocation.settle(storage, [move.target for move in moves])
        return missing

    def _clear(self, locations: list[ImageLocation]) -> None:
        failed = relocation.clear(self._resources.storage, locations)
        if failed:
            raise PermissionError(
                f"the old files of {len(failed)} images could not be removed, such as {failed[0].name}"
            )

    async def _set_state(self, state: MoveState) -> None:
        job_id = self._job_id
        assert job_id is not None
        await self._change(lambda connection: store.set_state(connection, job_id, state))

    # Recovery

    async def _recover(self) -> None:
        await self._settle()
        await self._change(lambda connection: store.give_up(connection, INTERRUPTED))

    async def _settle(self) -> None:
        """Keep the files of each image in the journal only in the subfolder of its record, and clear the journal."""
        journal = await self._read_journal()
        corrections = await in_thread(self._find_files, journal)
        async with self._resources.database.write() as connection:
            for name, (recorded, subfolder) in corrections.items():
                await store.correct_subfolder(connection, name, recorded, subfolder)
        unused = [
            ImageLocation(move.name, subfolder)
            for move, recorded in await self._read_journal()
            for subfolder in (move.origin, move.target)
            if subfolder != recorded
        ]
        await in_thread(self._clear, unused)
        await in_thread(relocation.prune, self._resources.storage, [location.subfolder for location in unused])
        await self._change(lambda connection: store.write_journal(connection, []))

    async def _read_journal(self) -> list[tuple[Move, str | None]]:
        async with self._resources.database.read() as connection:
            return await store.read_journal(connection)

    def _find_files(self, journal: list[tuple[Move, str | None]]) -> dict[str, tuple[str, str]]:
        """Return the recorded and the right subfolder of images whose records a power failure set back. Blocks."""
        corrections = {}
        for move, recorded in journal:
            if recorded not in (move.origin, move.target):
                continue
            other = move.target if recorded == move.origin else move.origin
            exists = partial(relocation.exists, self._resources.storage)
            if not exists(ImageLocation(move.name, recorded)) and exists(ImageLocation(move.name, other)):
                corrections[move.name] = recorded, other
        return corrections
