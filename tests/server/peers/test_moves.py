"""Moves of images, of which servers on one database run one at a time."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import files as image_files
from invokeclone.images import intent_log, reservations
from invokeclone.images import service as images_service
from invokeclone.images.errors import AlreadyMoving
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.relocation import files, service, store
from invokeclone.images.relocation.incomplete import INTERRUPTED, RESERVED
from invokeclone.images.relocation.intents import BatchIntent
from invokeclone.images.relocation.service import MOVE_LOCK, ImageMoves
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.queue import claims
from invokeclone.tables import image_move_jobs, images, session_queue
from tests.applications import sample_image
from tests.postgres import PostgresServer


@pytest.fixture
async def resources(settings: Settings, postgres: PostgresServer) -> AsyncIterator[Resources]:
    database = PostgresDatabase(postgres.clean_database())
    yield Resources(settings, database, Bus())
    await database.close()


async def test_a_server_that_starts_does_not_disturb_the_move_of_another(resources: Resources) -> None:
    async with resources.database.write() as connection:
        await store.hold_queue(connection, "another server")
        await store.add_job(connection)
    moves = ImageMoves(resources)
    async with resources.database.try_lock(MOVE_LOCK) as is_held:
        assert is_held
        await moves.start()
        job = (await moves.status()).latest_job
        assert job is not None
        assert job.state == "planned"
        with pytest.raises(AlreadyMoving):
            await moves.recover()
        assert resources.maintenance, "operations on images are refused meanwhile"
    await moves.start()
    job = (await moves.status()).latest_job
    assert job is not None
    assert job.state not in store.UNDER_WAY
    await moves.recover()
    await moves.stop()
    assert (await moves.status()).operation is None


def listeners(pair: list[Resources]) -> list[ImageMoves]:
    both = [ImageMoves(resources) for resources in pair]
    for mover, resources in zip(both, pair, strict=True):
        assert isinstance(resources.events, Bus)
        mover.listen(resources.events)
    return both


@pytest.fixture
async def movers(pair: list[Resources], monkeypatch: pytest.MonkeyPatch) -> list[ImageMoves]:
    monkeypatch.setattr(service, "PEER_CHECK_S", 0.01)
    return listeners(pair)


@pytest.fixture
async def slow_movers(pair: list[Resources], monkeypatch: pytest.MonkeyPatch) -> list[ImageMoves]:
    """Return two that learn of each other by events only."""
    monkeypatch.setattr(service, "PEER_CHECK_S", 3600.0)
    return listeners(pair)


async def until_free(resources: Resources) -> None:
    async with asyncio.timeout(30):
        while resources.maintenance:
            await asyncio.sleep(0.01)


async def test_operations_are_refused_while_another_server_moves_images(
    movers: list[ImageMoves], pair: list[Resources], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, second), resources = movers, pair[1]
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def move() -> None:
        begun.set()
        await go_on.wait()

    monkeypatch.setattr(first, "_move", move)
    await first.move_all()
    await begun.wait()
    assert resources.maintenance
    status = await second.status()
    assert (status.is_running, status.operation) == (True, "move_all")
    assert status.active_job_id == (await first.status()).active_job_id
    with pytest.raises(AlreadyMoving):
        await second.move_all()
    assert resources.maintenance
    go_on.set()
    async with asyncio.timeout(30):
        while resources.maintenance or (await second.status()).is_running:
            await asyncio.sleep(0.01)
    for mover in movers:
        await mover.stop()


async def test_the_others_go_on_when_the_server_that_moves_images_dies(
    movers: list[ImageMoves], pair: list[Resources]
) -> None:
    """Also without its events: one of them recovers, and workers claim items again."""
    dead = PostgresDatabase(str(pair[0].settings.database_url))
    async with dead.try_lock(MOVE_LOCK) as is_held:
        assert is_held
        async with dead.write() as connection:
            await store.hold_queue(connection, "dead")
            await store.add_job(connection)
            await store.write_journal(connection, [store.Move("none.png", "", "no")])
            item = {"queue_id": "default", "batch_id": "b", "session_id": "s", "status": "pending", "session": "{}"}
            await connection.execute(insert(session_queue).values(**item, created_at="x", updated_at="x"))
        async with asyncio.timeout(30):
            while not all(resources.maintenance for resources in pair):
                await asyncio.sleep(0.01)
        assert (await movers[1].status()).operation == "move_all"
        assert await claims.claim(pair[1], "cpu") is None
    async with asyncio.timeout(30):
        while await claims.claim(pair[1], "cpu") is None:
            await asyncio.sleep(0.01)
    for resources in pair:
        await until_free(resources)
    async with dead.read() as connection:
        job = await store.latest_job(connection)
        assert job is not None
        assert (job.state, job.error_message) == ("error", INTERRUPTED)
        assert await store.read_journal(connection) == []
    await dead.close()
    for mover in movers:
        await mover.stop()


async def test_a_move_that_begins_on_another_server_at_the_same_time_is_noticed(
    slow_movers: list[ImageMoves], pair: list[Resources], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event comes while this server still waits for the lock."""
    first, second = slow_movers
    go_on = asyncio.Event()
    try_lock = pair[1].database.try_lock

    async def move() -> None:
        await go_on.wait()

    @contextlib.asynccontextmanager
    async def try_late(key: int) -> AsyncIterator[bool]:
        await first.move_all()
        async with asyncio.timeout(30):
            while second._peer is None:
                await asyncio.sleep(0.01)
        async with try_lock(key) as is_held:
            yield is_held

    monkeypatch.setattr(first, "_move", move)
    with monkeypatch.context() as patch:
        patch.setattr(pair[1].database, "try_lock", try_late)
        with pytest.raises(AlreadyMoving):
            await second.move_all()
    assert pair[1].maintenance
    assert (await second.status()).active_job_id == (await first.status()).active_job_id
    go_on.set()
    for mover in slow_movers:
        await mover.stop()
    assert not pair[1].maintenance


async def cut_lock(resources: Resources) -> None:
    """End the database session that holds the lock."""
    async with resources.database.write() as connection:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = :high AND objid = :low"
        values = {"high": MOVE_LOCK >> 32, "low": MOVE_LOCK & 0xFFFFFFFF}
        assert len((await connection.execute(text(cut), values)).all()) == 1


async def make(resources: Resources) -> list[str]:
    """Save images and return their names."""
    saved = [
        await images_service.save(
            resources,
            sample_image(),
            category=ImageCategory.GENERAL,
            origin=ResourceOrigin.INTERNAL,
            is_intermediate=False,
        )
        for _ in range(3)
    ]
    return [image.image_name for image in saved]


def use(pair: list[Resources], strategy: str) -> None:
    for resources in pair:
        values = {**resources.settings.to_worker(), "image_subfolder_strategy": strategy}
        resources.settings = Settings(**values)


async def take_over(mover: ImageMoves, resources: Resources) -> None:
    """End the session that holds the lock of another server, and recover its move."""
    await cut_lock(resources)
    mover._task = None
    async with asyncio.timeout(30):
        while mover._task is None:
            with contextlib.suppress(AlreadyMoving):  # until the session has ended
                await mover.recover()
    await mover._task


async def move(mover: ImageMoves) -> str | None:
    """Move all images and return the error."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(AlreadyMoving):  # while another one checks whether the lock is free
                await mover.move_all()
                break
            await asyncio.sleep(0.01)
    assert mover._task is not None
    await mover._task
    job = (await mover.status()).latest_job
    assert job is not None
    return job.error_message


async def subfolders(resources: Resources) -> dict[str, str]:
    async with resources.database.read() as connection:
        rows = await connection.execute(select(images.c.image_name, images.c.image_subfolder))
        return {name: subfolder for name, subfolder in rows}  # noqa: C416  (rows are no pairs to a type checker)


@pytest.mark.parametrize("moves_too", [False, True])
async def test_a_server_that_lost_its_lock_removes_nothing(
    slow_movers: list[ImageMoves], pair: list[Resources], monkeypatch: pytest.MonkeyPatch, moves_too: bool
) -> None:
    """Another one recovers its batch, and may move images itself, while it still duplicates files."""
    first, second = slow_movers
    names = await make(pair[0])
    use(pair, "hash")
    reached, go_on = threading.Event(), threading.Event()
    settle = files.settle

    def wait(*args: Any) -> None:
        settle(*args)
        reached.set()
        assert go_on.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(files, "settle", wait)
        await first.move_all()
        assert await asyncio.to_thread(reached.wait, 30)
        await take_over(second, pair[1])
    moved = [store.Move(name, "", name[:2]) for name in names]
    lock = contextlib.AsyncExitStack()
    if moves_too:
        assert await lock.enter_async_context(pair[1].database.try_lock(MOVE_LOCK))
        async with pair[1].database.write() as connection:
            await store.hold_queue(connection, second._server_id)
            await store.write_journal(connection, moved)
            own_job = await store.add_job(connection)
    go_on.set()
    assert first._task is not None
    await first._task
    assert "another server took over" in ((await first.status()).last_error or "")
    assert await subfolders(pair[1]) == dict.fromkeys(names, "")
    for name in names:
        assert (await images_service.file(pair[1], name)).exists()
    async with pair[1].database.read() as connection:
        rows = await connection.execute(select(image_move_jobs.c.job_id, image_move_jobs.c.state))
        states = {job_id: state for job_id, state in rows}  # noqa: C416  (rows are no pairs to a type checker)
        if moves_too:
            assert states[own_job] == "planned"
            assert len(await store.read_journal(connection)) == 3
            assert await store.holder(connection) == second._server_id
        else:
            assert set(states.values()) == {"error"}
            assert await store.holder(connection) is None
    await lock.aclose()
    assert await move(second) is None
    assert await subfolders(pair[1]) == {name: name[:2] for name in names}
    for name in names:
        assert (await images_service.file(pair[1], name)).exists()
    for mover in slow_movers:
        await mover.stop()


async def check_whole(resources: Resources, expected: dict[str, str]) -> None:
    """Assert where the records are, that all have their files, and that there are no others, nor reservations."""
    assert await subfolders(resources) == expected
    keys = {key for name, subfolder in expected.items() for key in image_files.keys(ImageLocation(name, subfolder))}
    assert {stat.key for stat in resources.storage.list("images")} == keys
    async with resources.database.read() as connection:
        assert await reservations.list_reserved(connection) == set()
    assert list(intent_log.folder(resources.settings).glob("*")) == []


class Stop:
    """Stops a function of `relocation.files` until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._reached, self._go_on = threading.Event(), threading.Event()
        original = getattr(files, name)

        def wait(*args: Any) -> Any:
            monkeypatch.setattr(files, name, original)  # for the first call only
            self._reached.set()
            assert self._go_on.wait(60)
            return original(*args)

        monkeypatch.setattr(files, name, wait)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 30)

    def go_on(self) -> None:
        self._go_on.set()


@pytest.mark.parametrize("operation", ["move", "recovery"])
async def test_files_that_a_server_removes_late_are_not_those_of_images_moved_back(
    slow_movers: list[ImageMoves], pair: list[Resources], monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """It has lost its lock after the records were changed; another one recovers, and moves the images back."""
    first, second = slow_movers
    names = await make(pair[0])
    use(pair, "hash")
    hashed, flat = {name: name[:2] for name in names}, dict.fromkeys(names, "")
    removal = Stop(monkeypatch, "clear")
    if operation == "move":
        before, after = flat, hashed
        await first.move_all()
    else:  # of a move that has not changed the records: the images are moved to their targets again
        before, after = hashed, flat
        moves = [store.Move(name, "", name[:2]) for name in names]
        files.duplicate_all(pair[0].storage, moves)
        async with pair[0].database.write() as connection:
            await store.write_journal(connection, moves)
        await first.recover()
    await removal.reached()
    await take_over(second, pair[1])
    await check_files(pair[1], after)
    use(pair, "flat" if operation == "move" else "hash")
    error = await move(second)
    removal.go_on()
    assert first._task is not None
    await first._task
    await check_files(pair[1], after)
    assert error is not None
    assert f"3 images were not moved because {RESERVED}" in error
    await check_whole(pair[0], after)
    assert await move(second) is None
    await check_whole(pair[1], before)
    for mover in slow_movers:
        await mover.stop()


async def check_files(resources: Resources, expected: dict[str, str]) -> None:
    assert await subfolders(resources) == expected
    for name in expected:
        assert (await images_service.file(resources, name)).exists()


async def test_locations_of_a_dead_server_are_reserved_until_it_starts_or_for_a_day(
    slow_movers: list[ImageMoves], pair: list[Resources], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = slow_movers
    names = await make(pair[0])
    moves = [store.Move(name, name[:2], "") for name in names]
    use(pair, "hash")
    intent = intent_log.Intent(pair[0].settings)
    intent.create()
    async with pair[0].database.write() as connection:
        await BatchIntent(intent).reserve(connection, [store.Move(name, "", name[:2]) for name in names])
    await BatchIntent(intent).write(moves)
    files.duplicate_all(pair[0].storage, [store.Move(name, "", name[:2]) for name in names])
    intent.close(remove=False)
    assert RESERVED in (await move(second) or "")
    with monkeypatch.context() as patch:
        patch.setattr(reservations, "EXPIRES_AFTER", timedelta(0))
        async with pair[1].database.read() as connection:
            assert await reservations.list_reserved(connection) == set()
    await intent_log.settle_all(pair[0], alone=True)
    await check_whole(pair[0], dict.fromkeys(names, ""))
    assert await move(second) is None
    await check_whole(pair[1], {name: name[:2] for name in names})
    for mover in (first, second):
        await mover.stop()


async def test_the_last_file_of_an_image_is_not_removed_with_an_intent(pair: list[Resources]) -> None:
    """A power failure has lost the file at the recorded location: recovery of the move corrects the record."""
    (name, *_) = await make(pair[0])
    async with pair[0].database.write() as connection:
        await store.write_journal(connection, [store.Move(name, "", "lost")])
        await store.correct_subfolder(connection, name, "", "lost")
    intent = intent_log.Intent(pair[0].settings)
    intent.write(IMAGES, [ImageLocation(name, "")])
    intent.close(remove=False)
    await intent_log.settle_all(pair[0], alone=True)
    mover = ImageMoves(pair[0])
    await mover.start()
    assert (await subfolders(pair[0]))[name] == ""
    assert (await images_service.file(pair[0], name)).exists()
    await intent_log.settle_all(pair[0], alone=True)
    assert list(intent_log.folder(pair[0].settings).glob("*")) == []
