"""Moving all images to the subfolders of the current strategy, safe against crashes at any moment.

Images are moved in batches: the journal lists the images, the files are duplicated to the targets, the records are
updated, the origins are removed. `_settle` completes or reverts an interrupted batch from the journal. Meanwhile the
queue is paused and operations on images are refused, on all servers on the database.

One server at a time holds MOVE_LOCK, which it loses with its connection; the flag that pauses the queue has the id of the
server that took the lock last, and each transaction of another one is refused (`_write`). Its last files may be created or
removed later: until it has ended that, or its intent is settled, no image is moved to a location in its journal.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images import reservations
from invokeclone.images.errors import AlreadyMoving, QueueNotIdle
from invokeclone.images.events import ImageMoveChangedEvent
from invokeclone.images.relocation import files as relocation
from invokeclone.images.relocation import intents, store
from invokeclone.images.relocation.incomplete import FILES_MISSING, INTERRUPTED, RESERVED, MoveIncomplete, TakenOver
from invokeclone.images.relocation.store import Move
from invokeclone.images.schemas import ImageLocation, ImageMoveStatusResponse, MoveState
from invokeclone.kit import log
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.process.repeated_errors import RepeatedErrors
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.threads import in_storage_thread

BATCH_SIZE = 200
"""Images per batch: at most this many have two copies after an interruption."""

MAX_NAMES_IN_ERROR = 5
MOVE_LOCK = 0x6D6F76657
"""Key of the lock that one server holds while it moves images."""
PEER_CHECK_S = 2.0
"""Seconds between checks whether another server moves images, and whether it has died."""
RETRY_S = 1.0
"""Seconds between attempts to end an operation while the database cannot be reached."""
Operation = Literal["move_all", "recovery"]

_log = log.get("images.moves")


async def _new_job(connection: AsyncConnection, server_id: str) -> int:
    """Pause the queue and insert a job. Raises QueueNotIdle."""
    if await store.is_queue_busy(connection):
        raise QueueNotIdle
    await store.hold_queue(connection, server_id)
    await store.give_up(connection, INTERRUPTED)
    return await store.add_job(connection)


class ImageMoves:
    """The moves of one server. Call `start` and `stop` with the server's startup and shutdown."""

    def __init__(self, resources: Resources) -> None:
        """Move the images of `resources`."""
        self._resources = resources
        self._server_id = uuid4().hex
        self._operation: Operation | None = None
        self._job_id: int | None = None
        self._last_error: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._lock = contextlib.AsyncExitStack()
        self._peer: tuple[Operation, int | None] | None = None
        """What another server does: the operation and the id of its job."""
        self._watching = PeriodicTask(
            "check_image_moves",
            self._check_peers,
            PEER_CHECK_S,
            failure="cannot check whether another server moves images",
            logger=_log,
            expected=(SQLAlchemyError, OSError),
        )

    async def start(self) -> None:
        """Recover from a move that a crash interrupted, before anything else uses images.

        While another server moves images, operations on images are refused instead.
        """
        async with self._resources.database.try_lock(MOVE_LOCK) as is_alone:
            async with self._resources.database.read() as connection:
                has_journal = bool(await store.read_journal(connection))
            peer = await self._read_operation()
            self._set_peer(None if is_alone else peer)
            if is_alone and (has_journal or peer is not None):
                await self._hold_queue()
                await self._run("recovery", self._recover, patient=False)

    async def stop(self) -> None:
        """Stop after the current batch."""
        self._stopping.set()
        await self._watching.stop()
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
                self._job_id = await _new_job(connection, self._server_id)
        except BaseException:
            await self._release()
            raise
        self._task = asyncio.create_task(self._run("move_all", self._move), name="image move")
        return await self.status()

    async def recover(self) -> ImageMoveStatusResponse:
        """Start recovering from an earlier job. Raises AlreadyMoving."""
        await self._begin("recovery")
        try:
            await self._hold_queue()
        except BaseException:
            await self._release()
            raise
        self._task = asyncio.create_task(self._run("recovery", self._recover), name="image move recovery")
        return await self.status()

    async def _begin(self, operation: Operation) -> None:
        """Begin an operation. Raises AlreadyMoving if this server or another one moves images."""
        if self._operation is not None or self._stopping.is_set():
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

    async def _hold_queue(self) -> None:
        async with self._resources.database.write() as connection:
            await store.hold_queue(connection, self._server_id)

    # Moves of other servers

    def listen(self, bus: Bus) -> None:
        """Refuse operations on images while another server on the database moves them, and recover when it has died."""
        bus.subscribe(self._on_event, ImageMoveChangedEvent)
        self._watching.start()

    def _report(self) -> None:
        """Report the current operation to the other servers."""
        if self._resources.database.is_shared:
            event = ImageMoveChangedEvent(
                server_id=self._server_id,
                operation=self._operation,
                job_id=self._job_id,
                last_error=self._last_error,
            )
            self._resources.events.emit(event)

    def _on_event(self, _kind: type[Event], payload: dict[str, Any]) -> None:
        if payload.get("server_id") == self._server_id:
            return
        operation: Operation | None = payload["operation"]
        if self._operation is None:
            self._last_error = payload["last_error"]
        self._set_peer(None if operation is None else (operation, payload["job_id"]))

    def _set_peer(self, peer: tuple[Operation, int | None] | None) -> None:
        self._peer = peer
        self._resources.maintenance = peer is not None or self._operation is not None

    async def _read_operation(self) -> tuple[Operation, int | None] | None:
        """Return what the database says a server does, or did when it died."""
        async with self._resources.database.read() as connection:
            job = await store.latest_job(connection)
            is_held = await store.holder(connection) is not None
        if job is not None and job.state in store.UNDER_WAY:
            return "move_all", job.id
        return ("recovery", None) if is_held else None

    async def _check_peers(self) -> None:
        """Note what another server does, also without its events; recover if it has died: then its lock is free."""
        previous_peer = self._peer
        peer = await self._read_operation()
        if self._operation is not None or self._stopping.is_set():
            return
        if self._peer is previous_peer:  # else an event came meanwhile
            self._set_peer(peer)
        if peer is not None:
            with contextlib.suppress(AlreadyMoving):
                await self.recover()

    # Operations

    @contextlib.asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        """Yield a transaction of the operation. Raises TakenOver if another server has recovered meanwhile."""
        async with self._resources.database.write() as connection:
            if await store.holder(connection) != self._server_id:
                raise TakenOver
            yield connection

    async def _change(self, write: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        async with self._write() as connection:
            await write(connection)

    async def _run(self, operation: Operation, work: Callable[[], Awaitable[None]], *, patient: bool = True) -> None:
        """Run the operation, handle its errors, and resume queue and image operations.

        Without `patient`, an error of the database while it ends is raised.
        """
        self._operation = operation
        self._last_error = None
        self._report()
        error: Exception | None = None
        try:
            await work()
        except MoveIncomplete as incomplete:
            error = incomplete
            _log.warning("images were not all moved: %s", error)
        except (OSError, SQLAlchemyError) as failure:
            error = failure
            _log.exception("moving images failed")
        is_ended = await self._finish(error, patient)
        self._operation = self._job_id = None
        if is_ended:
            self._report()
        else:
            self._watching.wake()
        await self._release()

    async def _finish(self, error: Exception | None, patient: bool) -> bool:
        """End the operation, as soon as the database can be reached; false if that is left to another server or start."""
        failure = "cannot end a move of images; the queue is paused until that succeeds"
        errors = RepeatedErrors("end_move", failure=failure, logger=_log)
        while True:
            try:
                if error is not None:
                    await self._give_up(error)
                async with self._resources.database.write() as connection:
                    await store.release_queue(connection, self._server_id)
            except TakenOver as taken_over:
                self._last_error = str(taken_over)
                return False
            except (OSError, SQLAlchemyError) as problem:
                if not patient:
                    raise
                errors.report(problem)
            else:
                errors.note_success()
                return True
            if self._stopping.is_set():
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RETRY_S)

    async def _give_up(self, error: Exception) -> None:
        """Recover the current batch; if its files cannot be changed, the journal stays for the next attempt."""
        reason = self._last_error = str(error)
        await self._change(lambda connection: store.give_up(connection, reason))
        try:
            await self._settle()
        except OSError:
            _log.exception("could not recover from an interrupted move of images; the next start tries again")

    # Moving

    async def _move(self) -> None:
        """Move batches until no image is in the wrong subfolder."""
        strategy = self._resources.settings.image_subfolder_strategy
        try:
            await self._settle()  # what a server left that died a moment ago
        except OSError:
            _log.exception("could not recover from an earlier move of images")
        await self._set_state("moving")
        after, emptied = 0, set[str]()
        skipped: list[str] = []
        blocked: list[str] = []
        while True:
            if self._stopping.is_set():
                raise MoveIncomplete(INTERRUPTED)
            async with intents.open_batch(self._resources) as intent:
                async with self._write() as connection:
                    misplaced, after = await store.list_misplaced(connection, strategy, after, BATCH_SIZE)
                    reserved = await reservations.list_reserved(connection)
                    inside = [move for move in misplaced if relocation.is_inside(move.target)]
                    moves = [move for move in inside if ImageLocation(move.name, move.target) not in reserved]
                    await store.write_journal(connection, moves)
                    await intent.reserve(connection, moves)
                if not misplaced:
                    break
                skipped += [move.name for move in misplaced if move not in inside]
                blocked += [move.name for move in inside if move not in moves]
                await intent.write(moves)
                skipped += await self._move_batch(moves)
            emptied |= {move.origin for move in moves}
        await self._set_state("moved")
        await self._prune(emptied)
        for names, reason in ((skipped, FILES_MISSING), (blocked, RESERVED)):
            if names:
                some = ", ".join(names[:MAX_NAMES_IN_ERROR])
                raise MoveIncomplete(f"{len(names)} images were not moved because {reason}: {some}")
        await self._set_state("committed")

    async def _move_batch(self, moves: list[Move]) -> list[str]:
        """Move the images in the journal; return those whose files are missing. Raises TakenOver."""
        missing = await in_storage_thread(relocation.duplicate_all, self._resources.storage, moves)
        async with self._write() as connection:
            await store.relocate(connection, [move.name for move in moves if move.name not in missing])
            journal = await store.read_journal(connection)
            if {move for move, _ in journal} != set(moves):
                raise TakenOver
        unused = []
        for move, recorded in journal:
            if move.name in missing:
                continue
            if recorded in (move.target, None):
                unused.append(ImageLocation(move.name, move.origin))
            if recorded is None:  # the image was deleted in the meantime
                unused.append(ImageLocation(move.name, move.target))
        await in_storage_thread(relocation.clear, self._resources.storage, unused)
        return sorted(missing)

    async def _prune(self, subfolders: Iterable[str]) -> None:
        """Remove folders that are empty by now; those that cannot be removed stay, as nothing depends on them."""
        try:
            await in_storage_thread(relocation.prune, self._resources.storage, set(subfolders))
        except OSError as error:
            _log.warning("empty folders of images stay: %s", error)

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
        async with self._resources.database.read() as connection:
            journal = await store.read_journal(connection)
        if not journal:
            return
        corrections = await in_storage_thread(relocation.find_corrections, self._resources.storage, journal)
        async with intents.open_batch(self._resources) as intent:
            async with self._write() as connection:
                for name, (recorded, subfolder) in corrections.items():
                    await store.correct_subfolder(connection, name, recorded, subfolder)
                journal = await store.read_journal(connection)
                moves = [move for move, _ in journal]
                await intent.reserve(connection, moves)
            await intent.write(moves)
            unused = [
                ImageLocation(move.name, subfolder)
                for move, recorded in journal
                for subfolder in (move.origin, move.target)
                if subfolder != recorded
            ]
            await in_storage_thread(relocation.clear, self._resources.storage, unused)
        await self._prune(location.subfolder for location in unused)
        await self._change(lambda connection: store.write_journal(connection, []))
