"""Moving images between subfolders: where they end, what is refused meanwhile, and that a crash at any moment loses nothing."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import OperationalError

from invokeclone.boards.api import router as boards_router
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import files, service
from invokeclone.images.api import router as images_router
from invokeclone.images.relocation import files as relocation
from invokeclone.images.relocation import service as moves
from invokeclone.images.relocation import store as moves_store
from invokeclone.images.relocation.api import router as moves_router
from invokeclone.images.relocation.incomplete import INTERRUPTED
from invokeclone.images.relocation.service import ImageMoves
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage import local
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.queue import claims
from invokeclone.queue import service as queue_service
from invokeclone.server.http import bodies, errors, guards
from invokeclone.tables import app_state, images, session_queue
from tests import stored_files
from tests.applications import decode_image, sample_image
from tests.images.people import ANN, asking, multiuser, register

ROUTE = "/api/v1/image_moves"
STRATEGIES = ["flat", "date", "type", "hash"]


def use(resources: Resources, strategy: str) -> None:
    values = {**resources.settings.to_worker(), "image_subfolder_strategy": strategy}
    resources.settings = Settings(**values)


async def make(resources: Resources, count: int = 3) -> list[str]:
    """Save images: general, masks and intermediates in turn."""
    kinds = [ImageCategory.GENERAL, ImageCategory.MASK]
    saved = [
        await service.save(
            resources,
            sample_image(),
            category=kinds[number % 2],
            origin=ResourceOrigin.INTERNAL,
            is_intermediate=number % 3 == 2,
        )
        for number in range(count)
    ]
    return [image.image_name for image in saved]


async def subfolders(resources: Resources) -> dict[str, str]:
    async with resources.database.read() as connection:
        rows = await connection.execute(select(images.c.image_name, images.c.image_subfolder))
        return {name: subfolder for name, subfolder in rows}  # noqa: C416  (rows are no pairs to a type checker)


def on_disk(resources: Resources) -> set[Path]:
    return {path for path in (resources.settings.outputs_path / "images").rglob("*") if path.is_file()}


async def check_whole(resources: Resources) -> dict[str, str]:
    """Assert that each record has both files, each file its record, nothing is noted and the queue is free."""
    current = await subfolders(resources)
    expected = set()
    for name, subfolder in current.items():
        location = ImageLocation(name, subfolder)
        expected |= {
            stored_files.full_path(resources.settings, location),
            stored_files.thumbnail_path(resources.settings, location),
        }
        assert decode_image((await service.file(resources, name)).read()).size == (48, 32)
    assert on_disk(resources) == expected
    async with resources.database.read() as connection:
        assert await moves_store.read_journal(connection) == []
        marker = select(app_state.c.key).where(app_state.c.key == moves_store.MOVING)
        assert (await connection.execute(marker)).first() is None
    assert resources.maintenance is False
    return current


async def done(mover: ImageMoves) -> None:
    assert mover._task is not None
    await mover._task


class TestMoving:
    @pytest.mark.parametrize("before", STRATEGIES)
    @pytest.mark.parametrize("after", STRATEGIES)
    async def test_moves_between_all_strategies(self, resources: Resources, before: str, after: str) -> None:
        """And what a move makes of images is what the strategy makes of new ones."""
        use(resources, before)
        names = await make(resources, 4)
        was = await check_whole(resources)
        use(resources, after)
        mover = ImageMoves(resources)
        running_status = await mover.move_all()
        assert (running_status.is_running, running_status.operation) == (True, "move_all")
        await done(mover)
        status = await mover.status()
        assert (status.is_running, status.operation, status.active_job_id, status.last_error) == (
            False,
            None,
            None,
            None,
        )
        assert status.latest_job is not None
        assert (status.latest_job.state, status.latest_job.error_message) == ("committed", None)
        assert status.needs_move_count == 0
        current = await check_whole(resources)
        fresh = await make(resources, 4)
        now = await subfolders(resources)
        if after == "hash":
            assert [current[name] for name in names] == [name[:2] for name in names]
        else:
            assert [current[name] for name in names] == [now[name] for name in fresh]
        assert (before == after) == (was == current)

    async def test_empty_folders_are_removed_and_used_ones_kept(self, resources: Resources) -> None:
        use(resources, "date")
        await make(resources)
        use(resources, "type")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        folder = resources.settings.outputs_path / "images"
        assert {path.name for path in folder.iterdir()} == {"general", "mask", "intermediate", "thumbnails"}
        assert {path.name for path in (folder / "thumbnails").iterdir()} == {"general", "mask", "intermediate"}

    async def test_many_batches(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(moves, "BATCH_SIZE", 2)
        names = await make(resources, 7)
        use(resources, "hash")
        mover = ImageMoves(resources)
        assert (await mover.move_all()).needs_move_count in range(8)
        await done(mover)
        assert await check_whole(resources) == {name: name[:2] for name in names}

    async def test_moves_work_without_hard_links(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
        names = await make(resources)
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        assert await check_whole(resources) == {name: name[:2] for name in names}

    async def test_a_moved_image_can_be_deleted(self, resources: Resources) -> None:
        """In the reference the journal keeps it from being deleted ever after."""
        names = await make(resources)
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        assert (await service.delete_many(resources, names)).names
        assert on_disk(resources) == set()

    async def test_images_with_missing_files(self, resources: Resources) -> None:
        """They stay as they are, the others are moved, and the job says so."""
        names = await make(resources)
        files.remove(resources.storage, [ImageLocation(names[1], "")])
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        status = await mover.status()
        assert status.latest_job is not None
        assert status.latest_job.state == "error"
        assert names[1] in (status.latest_job.error_message or "")
        assert status.last_error == status.latest_job.error_message
        assert status.needs_move_count == 1
        assert await subfolders(resources) == {name: "" if name == names[1] else name[:2] for name in names}

    async def test_a_missing_thumbnail_does_not_stop_a_move(self, resources: Resources) -> None:
        (name,) = await make(resources, 1)
        stored_files.thumbnail_path(resources.settings, ImageLocation(name, "")).unlink()
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        assert await subfolders(resources) == {name: name[:2]}

    async def test_unsafe_names_are_not_moved(self, resources: Resources) -> None:
        (name,) = await make(resources, 1)
        async with resources.database.write() as connection:
            await connection.execute(update(images).values(image_name="..png"))
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        assert await subfolders(resources) == {"..png": ""}
        assert (await mover.status()).last_error
        assert name

    async def test_a_full_disk(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was begun is taken back; what was done before stays."""
        monkeypatch.setattr(moves, "BATCH_SIZE", 2)
        names = await make(resources, 5)
        copy = LocalStorage.copy
        calls = iter(range(100))

        def fill(storage: LocalStorage, source: str, target: str) -> None:
            if next(calls) == 6:
                raise OSError(28, "No space left on device")
            copy(storage, source, target)

        monkeypatch.setattr(LocalStorage, "copy", fill)
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        status = await mover.status()
        assert status.latest_job is not None
        assert status.latest_job.state == "error"
        assert "No space left" in (status.last_error or "")
        assert await check_whole(resources) == {name: name[:2] if name in names[:2] else "" for name in names}
        await mover.move_all()
        await done(mover)
        assert await check_whole(resources) == {name: name[:2] for name in names}

    async def test_an_image_deleted_during_a_move(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        """By a worker's cleaning, say: it asks no route."""
        names = await make(resources)
        use(resources, "hash")
        mover = ImageMoves(resources)
        relocate = moves_store.relocate

        async def late(connection: Any, batch: Any) -> None:
            await connection.execute(delete(images).where(images.c.image_name == names[0]))
            await relocate(connection, batch)

        monkeypatch.setattr(moves_store, "relocate", late)
        await mover.move_all()
        await done(mover)
        assert await check_whole(resources) == {name: name[:2] for name in names[1:]}


class Crash(BaseException):
    """The process is killed: nothing after it runs."""


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, *, after: bool) -> Iterator[None]:
    """Die at the call numbered `at` of a function, before or after it does its work."""
    original = getattr(owner, name)
    calls = iter(range(1000))

    def die(*args: Any, **kwargs: Any) -> Any:
        if next(calls) != at:
            return original(*args, **kwargs)
        if after:
            original(*args, **kwargs)
        raise Crash

    async def die_async(*args: Any, **kwargs: Any) -> Any:
        if next(calls) != at:
            return await original(*args, **kwargs)
        if after:
            await original(*args, **kwargs)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die_async if asyncio.iscoroutinefunction(original) else die)
        yield


async def crashed(mover: ImageMoves) -> None:
    """Wait for the crash; the end of a process releases its lock."""
    with pytest.raises(Crash):
        await done(mover)
    await mover._lock.aclose()


STAGES: list[tuple[Any, str, int]] = [
    (moves_store, "set_state", 0),
    (moves_store, "list_misplaced", 0),
    (moves_store, "list_misplaced", 1),
    (moves_store, "write_journal", 0),
    (moves_store, "write_journal", 1),
    (LocalStorage, "copy", 0),
    (LocalStorage, "copy", 1),
    (LocalStorage, "copy", 2),
    (relocation, "settle", 0),
    (moves_store, "relocate", 0),
    (moves_store, "relocate", 1),
    (relocation, "clear", 0),
    (relocation, "clear", 1),
    (local, "remove_file", 0),
    (local, "remove_file", 1),
    (local, "remove_file", 3),
    (relocation, "prune", 0),
    (moves_store, "set_state", 2),
    (moves_store, "release_queue", 0),
]


class TestCrashes:
    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage[1]}-{stage[2]}")
    async def test_a_crash_at_each_stage(
        self, resources: Resources, monkeypatch: pytest.MonkeyPatch, stage: tuple[Any, str, int], after: bool
    ) -> None:
        """No record is without its file, at the crash or after the next start; then the move can be done again."""
        monkeypatch.setattr(moves, "BATCH_SIZE", 2)
        names = await make(resources, 4)
        use(resources, "hash")
        dead = ImageMoves(resources)
        with dying(monkeypatch, *stage, after=after):
            await dead.move_all()
            await crashed(dead)
        for name, subfolder in (await subfolders(resources)).items():
            assert stored_files.full_path(resources.settings, ImageLocation(name, subfolder)).is_file()
        resources = Resources(resources.settings, resources.database, resources.events)
        mover = ImageMoves(resources)
        await mover.start()
        current = await check_whole(resources)
        assert set(current) == set(names)
        status = await mover.status()
        assert status.is_running is False
        assert status.latest_job is not None
        assert status.latest_job.state in {"error", "committed"}
        assert status.needs_move_count == sum(not subfolder for subfolder in current.values())
        await mover.move_all()
        await done(mover)
        assert await check_whole(resources) == {name: name[:2] for name in names}

    async def test_a_crash_during_recovery(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        names = await make(resources, 4)
        use(resources, "hash")
        with dying(monkeypatch, moves_store, "relocate", 0, after=False):
            dead = ImageMoves(resources)
            await dead.move_all()
            await crashed(dead)
        for at in range(3):
            with dying(monkeypatch, local, "remove_file", at, after=True), pytest.raises(Crash):
                await ImageMoves(resources).start()
        mover = ImageMoves(resources)
        await mover.start()
        assert await check_whole(resources) == dict.fromkeys(names, "")

    @pytest.mark.parametrize("says", ["origin", "target"])
    async def test_a_power_loss_between_file_and_record_is_recovered(self, resources: Resources, says: str) -> None:
        """The disk has the file at one place, the record says the other: the journal knows both."""
        (name,) = await make(resources, 1)
        move = moves_store.Move(name, "", "aa")
        async with resources.database.write() as connection:
            await moves_store.write_journal(connection, [move])
            if says == "target":
                await moves_store.correct_subfolder(connection, name, "", "aa")
        if says == "origin":
            relocation.duplicate(resources.storage, ImageLocation(name, ""), ImageLocation(name, "aa"))
            relocation.clear(resources.storage, [ImageLocation(name, "")])
        await ImageMoves(resources).start()
        assert await check_whole(resources) == {name: "aa" if says == "origin" else ""}

    async def test_a_record_that_changes_during_recovery_is_not_set_back(
        self, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The storage is asked outside of the transaction that corrects records."""
        (name,) = await make(resources, 1)
        use(resources, "hash")
        with dying(monkeypatch, moves_store, "relocate", 0, after=False):
            dead = ImageMoves(resources)
            await dead.move_all()
            await crashed(dead)
        find = relocation.find_corrections

        def find_late(storage: Any, journal: Any) -> Any:
            assert find(storage, journal) == {}
            return {name: ("other", name[:2])}

        monkeypatch.setattr(relocation, "find_corrections", find_late)
        await ImageMoves(resources).start()
        assert await check_whole(resources) == {name: ""}

    async def test_stopping_the_server_during_a_move(
        self, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The batch is brought to its end, and no further one begun."""
        monkeypatch.setattr(moves, "BATCH_SIZE", 1)
        await make(resources, 5)
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await mover.stop()
        current = await check_whole(resources)
        status = await mover.status()
        assert "" in current.values()
        assert status.latest_job is not None
        assert (status.latest_job.state, status.last_error) == ("error", INTERRUPTED)

    async def test_a_move_is_complete_although_empty_folders_stay(
        self, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_arguments: object) -> None:
            raise StorageUnreachable("all threads wait for the storage")

        monkeypatch.setattr(relocation, "prune", fail)
        (name,) = await make(resources, 1)
        use(resources, "hash")
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        status = await mover.status()
        assert status.latest_job is not None
        assert (status.latest_job.state, status.last_error) == ("committed", None)
        async with resources.database.write() as connection:
            await moves_store.write_journal(connection, [moves_store.Move(name, "", name[:2])])
        await mover.recover()
        await done(mover)
        assert (await mover.status()).last_error is None
        await check_whole(resources)

    @pytest.mark.parametrize("name", ["give_up", "release_queue"])
    async def test_a_move_is_ended_as_soon_as_the_database_is_back(
        self, resources: Resources, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (missing,) = await make(resources, 1)
        files.remove(resources.storage, [ImageLocation(missing, "")])
        use(resources, "hash")
        original, attempts = getattr(moves_store, name), iter(range(100))

        async def fail(*args: Any) -> None:
            if args[-1] != INTERRUPTED and next(attempts) < 2:
                raise OperationalError("", None, OSError("the server was restarted"))
            await original(*args)

        monkeypatch.setattr(moves_store, name, fail)
        monkeypatch.setattr(moves, "RETRY_S", 0.01)
        mover = ImageMoves(resources)
        await mover.move_all()
        await done(mover)
        assert next(attempts) == 3
        assert resources.maintenance is False
        status = await mover.status()
        assert status.operation is None
        assert missing in (status.last_error or "")
        await enqueue_row(resources, "pending")
        assert await claims.claim(resources, "cpu") is not None

    async def test_a_start_with_nothing_to_recover(self, resources: Resources) -> None:
        async with resources.database.write() as connection:
            await moves_store.hold_queue(connection, "a dead server")
        await ImageMoves(resources).start()
        await check_whole(resources)


@asynccontextmanager
async def serve_with_guard(resources: Resources, mover: ImageMoves) -> AsyncIterator[httpx.AsyncClient]:
    app = Application()
    app.services.add(Resources, resources)
    app.services.add(ImageMoves, mover)
    errors.install(app)
    for router in (images_router, boards_router, moves_router):
        app.include_router(bodies.read_strictly(router))
    app.add_middleware(guards.ImageMoveGuard, resources=resources)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keep moves and recoveries from going on until the returned function is called."""
    wait = asyncio.Event()
    monkeypatch.setattr(ImageMoves, "_settle", _hold(ImageMoves._settle, wait))
    monkeypatch.setattr(ImageMoves, "_move", _hold(ImageMoves._move, wait))
    return wait.set


def _hold(move: Any, wait: asyncio.Event) -> Any:
    async def delay_move(self: ImageMoves) -> None:
        await wait.wait()
        await move(self)

    return delay_move


async def enqueue_row(resources: Resources, status: str) -> None:
    async with resources.database.write() as connection:
        row = {
            "queue_id": "default", "batch_id": "b", "session_id": "s", "status": status, "session": "{}",
            "created_at": "x", "updated_at": "x",
        }  # fmt: skip
        await connection.execute(insert(session_queue).values(row))


class TestRoutes:
    @pytest.mark.parametrize(("route", "operation"), [("start", "move_all"), ("recover", "recovery")])
    async def test_image_routes_are_blocked_during_a_move(
        self, resources: Resources, held: Callable[[], None], route: str, operation: str
    ) -> None:
        """What touches images is refused, the rest answers; afterwards all is as before."""
        (name,) = await make(resources, 1)
        mover = ImageMoves(resources)
        async with serve_with_guard(resources, mover) as client:
            answer = await client.post(f"{ROUTE}/{route}")
            assert answer.status_code == 202
            assert (answer.json()["is_running"], answer.json()["operation"]) == (True, operation)
            image_path, many = f"/api/v1/images/i/{name}", {"image_names": [name]}
            requests = [
                ("POST", "/api/v1/images/upload", None), ("POST", "/api/v1/images/delete", many),
                ("POST", "/api/v1/images/star", many), ("POST", "/api/v1/images/unstar", many),
                ("POST", "/api/v1/images/download", many), ("DELETE", image_path, None), ("PATCH", image_path, {"starred": True}),
                ("DELETE", "/api/v1/images/intermediates", None), ("DELETE", "/api/v1/images/uncategorized", None),
                ("POST", "/api/v1/boards/?board_name=b", None), ("DELETE", "/api/v1/boards/b", None),
                ("PATCH", "/api/v1/boards/b", {}), ("POST", "/api/v1/board_images/", {}),
                ("POST", "/api/v1/board_images/batch", {}), ("GET", f"{image_path}/full", None), ("HEAD", f"{image_path}/full", None),
                ("GET", f"{image_path}/thumbnail", None), ("GET", f"{image_path}/workflow", None),
                ("POST", f"{ROUTE}/start", None), ("POST", f"{ROUTE}/recover", None),
            ]  # fmt: skip
            for method, path, body in requests:
                refused = await client.request(method, path, json=body)
                assert refused.status_code == 409, path
                assert method == "HEAD" or "moved" in refused.json()["detail"]
            for path in (
                image_path,
                f"{image_path}/metadata",
                "/api/v1/images/",
                "/api/v1/images/names",
                "/api/v1/boards/?all=true",
            ):
                assert (await client.get(path)).status_code == 200, path
            assert (await client.post("/api/v1/images/images_by_names", json=many)).status_code == 200
            assert (await client.get(f"{ROUTE}/status")).json()["operation"] == operation
            held()
            await done(mover)
            assert (await client.get(f"{image_path}/full")).status_code == 200
            assert (await client.post("/api/v1/images/star", json=many)).status_code == 200
            status = (await client.get(f"{ROUTE}/status")).json()
        assert (status["is_running"], status["operation"], status["needs_move_count"]) == (False, None, 0)

    async def test_the_queue_is_paused_during_a_move(self, resources: Resources, held: Callable[[], None]) -> None:
        """Workers ask the database and no server: their claim finds the flag there."""
        mover = ImageMoves(resources)
        await mover.move_all()
        await enqueue_row(resources, "pending")
        assert await claims.claim(resources, "cpu") is None
        with pytest.raises(queue_service.ImagesMoving):
            await queue_service.retry(resources, "default", [1])
        held()
        await done(mover)
        assert await claims.claim(resources, "cpu") is not None

    @pytest.mark.parametrize(
        ("status", "expected"), [("pending", 409), ("in_progress", 409), ("waiting", 409), ("completed", 202)]
    )
    async def test_the_queue_must_be_idle(self, resources: Resources, status: str, expected: int) -> None:
        await enqueue_row(resources, status)
        mover = ImageMoves(resources)
        async with serve_with_guard(resources, mover) as client:
            assert (await client.post(f"{ROUTE}/start")).status_code == expected
            if expected == 202:
                await done(mover)
            assert (await client.get(f"{ROUTE}/status")).json()["is_running"] is False
        await check_whole(resources)

    async def test_concurrent_starts_run_one_move(self, resources: Resources) -> None:
        mover = ImageMoves(resources)
        async with serve_with_guard(resources, mover) as client:
            answers = await asyncio.gather(*[client.post(f"{ROUTE}/start") for _ in range(4)])
        await done(mover)
        assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]

    async def test_initial_status(self, resources: Resources) -> None:
        async with serve_with_guard(resources, ImageMoves(resources)) as client:
            assert (await client.get(f"{ROUTE}/status")).json() == {
                "is_running": False,
                "operation": None,
                "active_job_id": None,
                "latest_job": None,
                "last_error": None,
                "needs_move_count": 0,
            }

    async def test_routes_require_an_admin(self, resources: Resources) -> None:
        await register(resources.database)
        mover = ImageMoves(multiuser(resources))
        async with asking(multiuser(resources), moves_router, parts={ImageMoves: mover}) as people:
            for method, route in (("POST", "start"), ("POST", "recover"), ("GET", "status")):
                assert (await people[ANN.user_id].request(method, f"{ROUTE}/{route}")).status_code == 403
            assert (await people["root"].post(f"{ROUTE}/start")).status_code == 202
            await done(mover)
