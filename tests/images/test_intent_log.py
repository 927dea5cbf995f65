"""Notes of files that may have no record: what a process that died has left is put in order, and nothing else is touched."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from PIL import Image

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import files, intent_log, reservations, service, store
from invokeclone.images.errors import ImageNotFound
from invokeclone.images.media_kinds import IMAGES, VIDEOS
from invokeclone.images.relocation import files as relocation
from invokeclone.images.relocation import store as moves
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.kit.sql.transactions import CommitUnknown
from tests import stored_files
from tests.applications import sample_image
from tests.faults import Faults, check_images, image_names

LEFT = ImageLocation("left.png", "2026/01")
DEAD = """
import os, signal, sys
from pathlib import Path
from invokeclone.images import files
from invokeclone.images import intent_log
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage.addresses import local_storage
settings = Settings(root=Path(sys.argv[1]))
place = ImageLocation("left.png", "2026/01")
intent_log.Intent(settings).write(IMAGES, [place])
files.write(local_storage(settings), place, b"png", b"webp")
local_storage(settings).local_path(files.full_key(place)).with_name(".left.png.0123abcd.part").write_bytes(b"p")
print("written", flush=True)
signal.pause()
"""


async def save(resources: Resources) -> ImageLocation:
    image = await service.save(
        resources, sample_image(), category=ImageCategory.GENERAL, origin=ResourceOrigin.INTERNAL, is_intermediate=False
    )
    return ImageLocation(image.image_name, "")


def notes(resources: Resources) -> list[Path]:
    return list(intent_log.folder(resources.settings).glob("*"))


def abandon(resources: Resources, *places: ImageLocation) -> intent_log.Intent:
    """Write a note and give up its lock, as the end of a process does."""
    intent = intent_log.Intent(resources.settings)
    intent.write(IMAGES, places)
    intent.close(remove=False)
    return intent


@pytest.mark.skipif(sys.platform == "win32", reason="the test needs file locks and signals")
async def test_only_intents_of_dead_processes_are_settled(resources: Resources) -> None:
    path = stored_files.full_path(resources.settings, LEFT)
    command = [sys.executable, "-c", DEAD, str(resources.settings.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"written\n"
        await intent_log.settle_all(resources, alone=True)
        assert path.read_bytes() == b"png"
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    await intent_log.settle_all(resources)
    assert not path.exists()
    await check_images(resources)
    assert notes(resources) == []


async def test_files_with_a_record_are_kept(resources: Resources) -> None:
    location = await save(resources)
    part = stored_files.thumbnail_path(resources.settings, location).with_name(
        f".{Path(location.name).stem}.webp.0123abcd.part"
    )
    part.write_bytes(b"half")
    other = part.with_name(".somebody else.webp.0123abcd.part")
    other.write_bytes(b"half")
    abandon(resources, location, LEFT)
    await intent_log.settle_all(resources)
    assert not part.exists()
    assert other.exists()
    other.unlink()
    await check_images(resources)
    assert notes(resources) == []


async def test_an_interrupted_deletion_is_completed(resources: Resources) -> None:
    location, there = await save(resources), await save(resources)
    abandon(resources, location)
    async with resources.database.write() as connection:
        await store.delete_selection(connection, store.select_named([location.name]))
    await intent_log.settle_all(resources)
    await check_images(resources)
    assert stored_files.full_path(resources.settings, there).exists()


async def test_a_truncated_intent_is_settled(resources: Resources) -> None:
    files.write(resources.storage, LEFT, b"png", b"webp")
    abandon(resources, LEFT)
    (note,) = notes(resources)
    note.write_text(note.read_text() + '["image", "half')
    note.with_name("empty.json").touch()
    await intent_log.settle_all(resources)
    assert notes(resources) == []
    assert not stored_files.full_path(resources.settings, LEFT).exists()


async def test_without_file_locks_intents_are_settled_only_at_startup(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> bool:
        raise OSError("no locks here")

    monkeypatch.setattr(intent_log, "try_lock", refuse)
    files.write(resources.storage, LEFT, b"png", b"webp")
    abandon(resources, LEFT)
    await intent_log.settle_all(resources)
    assert stored_files.full_path(resources.settings, LEFT).exists()
    await intent_log.settle_all(resources, alone=True)
    assert not stored_files.full_path(resources.settings, LEFT).exists()
    assert notes(resources) == []


async def test_partial_video_uploads_are_removed_at_startup(resources: Resources) -> None:
    part = files.uploads_folder(resources.settings) / "x.part"
    part.parent.mkdir(parents=True)
    part.touch()
    await intent_log.settle_all(resources)
    assert part.exists()
    await intent_log.settle_all(resources, alone=True)
    assert not part.exists()


async def test_video_files_are_settled(resources: Resources) -> None:
    location = ImageLocation("v.mp4", "")
    for path in (all_paths := stored_files.paths(resources.settings, location, VIDEOS)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    intent = intent_log.Intent(resources.settings)
    intent.write(VIDEOS, [location])
    intent.close(remove=False)
    await intent_log.settle_all(resources)
    assert len(all_paths) == 3
    assert not any(path.exists() for path in all_paths)


async def test_a_canceled_save_leaves_no_files(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = asyncio.Event(), files.write
    loop = asyncio.get_running_loop()

    def slow(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(files, "write", slow)
    saving = asyncio.create_task(save(resources))
    await written.wait()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await check_images(resources)
    assert notes(resources) == []


async def test_deletion_works_when_the_intent_cannot_be_written(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await save(resources)

    def refuse(*_arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(intent_log.Intent, "write", refuse)
    await service.delete(resources, location.name)
    await check_images(resources)
    assert not stored_files.full_path(resources.settings, location).exists()


async def test_what_was_added_since_is_listed_before_it_is_deleted(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = [await save(resources)]
    find, remove, listed = store.list_locations, files.remove, list[str]()

    async def find_too_early(connection: Any, selection: store.Selection) -> list[ImageLocation]:
        return (await find(connection, selection))[:-1]

    def note(*arguments: Any) -> Any:
        listed.extend(path.read_text() for path in notes(resources))
        return remove(*arguments)

    monkeypatch.setattr(store, "list_locations", find_too_early)
    monkeypatch.setattr(files, "remove", note)
    locations.append(await save(resources))
    deleted = await service.delete_uncategorized(resources)
    assert {item.location for item in deleted} == set(locations)
    assert len(listed) == 1
    assert all(location.name in listed[0] for location in locations)
    await check_images(resources)


@pytest.mark.sqlite("makes operations of SQLite's driver fail")
async def test_each_operation_of_a_deletion_may_fail(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(monkeypatch, resources.settings.root)
    for number in range(100):
        location = await save(resources)
        with faults.armed(number):
            try:
                await service.delete(resources, location.name)
            except Exception:  # noqa: BLE001  (whatever it is, what is there must agree)
                assert faults.failed is not None
        await intent_log.settle_all(resources)
        await check_images(resources)
        if number and faults.failed is None:
            break
    assert number > 5
    assert notes(resources) == []


async def test_a_save_that_is_canceled_while_its_files_are_written_leaves_none(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, write = asyncio.Event(), threading.Event(), files.write
    loop = asyncio.get_running_loop()

    def slow(*arguments: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        may_go_on.wait(30)
        write(*arguments)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(written.set)

    written = asyncio.Event()
    monkeypatch.setattr(files, "write", slow)
    saving = asyncio.create_task(save(resources))
    await begun.wait()
    saving.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    loop.call_later(0.1, may_go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await saving
    await written.wait()
    await check_images(resources)
    assert notes(resources) == []


async def test_no_files_are_written_after_the_end(resources: Resources) -> None:
    intent = intent_log.Intent(resources.settings)
    intent.close(remove=True)
    with pytest.raises(RuntimeError):
        intent.write(IMAGES, [LEFT])
    assert notes(resources) == []


@pytest.mark.parametrize("is_removed", [True, False])
@pytest.mark.skipif(sys.platform == "win32", reason="the test needs file locks")
def test_an_intent_that_is_taken_before_it_is_locked_is_written_again(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, *, is_removed: bool
) -> None:
    lock, taken = intent_log.try_lock, []

    def late(descriptor: int) -> bool:
        if not taken:
            (path,) = notes(resources)
            taken.append(os.open(path, os.O_RDWR))
            assert lock(taken[0])
            path.unlink()
            if is_removed:
                os.close(taken[0])
        return lock(descriptor)

    monkeypatch.setattr(intent_log, "try_lock", late)
    intent = intent_log.Intent(resources.settings)
    intent.write(IMAGES, [LEFT])
    (note,) = notes(resources)
    assert "left.png" in note.read_text()
    if not is_removed:
        os.close(taken[0])
    intent.close(remove=True)
    assert notes(resources) == []


async def test_an_intent_that_cannot_be_read_does_not_prevent_the_start(resources: Resources) -> None:
    files.write(resources.storage, LEFT, b"png", b"webp")
    abandon(resources, LEFT)
    (note,) = notes(resources)
    note.write_bytes(b"\xff\xfe\0\n5\n[[],1,2]\n" + note.read_bytes())
    await intent_log.settle_all(resources, alone=True)
    assert notes(resources) == []
    assert not stored_files.full_path(resources.settings, LEFT).exists()


@pytest.mark.sqlite("errors of SQLite's driver")
async def test_a_failing_database_does_not_prevent_the_start(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute: Any = aiosqlite.Connection._execute

    async def fail(self: aiosqlite.Connection, work: object, *arguments: object, **options: object) -> object:
        if arguments[:1] == ("BEGIN IMMEDIATE",):
            raise sqlite3.OperationalError("disk I/O error")
        return await execute(self, work, *arguments, **options)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", fail)
    abandon(resources, LEFT)
    await intent_log.settle_all(resources, alone=True)
    assert len(notes(resources)) == 1


async def test_files_stay_while_the_database_may_still_commit_their_record(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was lost during the COMMIT, which the database has not ended yet."""
    other, inserted, go = open_database(resources.settings), asyncio.Event(), asyncio.Event()
    committing: list[asyncio.Task[None]] = []

    async def commit(new: Any) -> None:
        async with other.write() as connection:
            await store.add(connection, IMAGES, new)
            inserted.set()
            await go.wait()

    async def lose(_resources: Resources, new: Any, *_others: Any, **_options: Any) -> None:
        committing.append(asyncio.create_task(commit(new)))
        await inserted.wait()
        raise CommitUnknown(None, OSError("the connection is lost"))

    monkeypatch.setattr(service, "create_record", lose)
    saving = asyncio.create_task(save(resources))
    await inserted.wait()
    await asyncio.wait({saving}, timeout=0.2)  # for files that would be removed too early
    go.set()
    with pytest.raises(CommitUnknown):
        await saving
    await asyncio.gather(*committing)
    await other.close()
    await check_images(resources)
    assert len(await image_names(resources)) == 1


async def test_an_intent_that_its_owner_removes_is_no_problem(
    resources: Resources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    abandon(resources, LEFT)
    take = intent_log._take

    def take_and_remove(path: Path, *, alone: bool) -> int | None:
        descriptor = take(path, alone=alone)
        path.unlink()
        return descriptor

    monkeypatch.setattr(intent_log, "_take", take_and_remove)
    with caplog.at_level("WARNING"):
        await intent_log.settle_all(resources)
    assert caplog.messages == []


async def test_a_thumbnail_of_an_image_that_is_deleted_meanwhile_is_removed(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    location, thumbnail = await save(resources), files.thumbnail
    stored_files.thumbnail_path(resources.settings, location).unlink()
    loop = asyncio.get_running_loop()

    def late(image: Image.Image) -> bytes:
        asyncio.run_coroutine_threadsafe(service.delete(resources, location.name), loop).result(30)
        return thumbnail(image)

    monkeypatch.setattr(files, "thumbnail", late)
    with pytest.raises(ImageNotFound):
        await service.regenerate_thumbnail(resources, location.name)
    await check_images(resources)
    assert notes(resources) == []


async def test_files_are_not_removed_where_an_image_is_being_moved_to(resources: Resources) -> None:
    location = await save(resources)
    target = ImageLocation(location.name, "aa")
    relocation.duplicate(resources.storage, location, target)
    abandon(resources, target)
    async with resources.database.write() as connection:
        await moves.write_journal(connection, [moves.Move(location.name, "", "aa")])
    await intent_log.settle_all(resources)
    assert stored_files.full_path(resources.settings, target).exists()
    assert len(notes(resources)) == 1
    async with resources.database.write() as connection:
        await moves.write_journal(connection, [])
    await intent_log.settle_all(resources)
    assert notes(resources) == []
    await check_images(resources)


async def test_an_expired_reservation_protects_no_file_of_an_image_that_is_moved_back(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await save(resources)
    target = ImageLocation(location.name, "aa")
    relocation.duplicate(resources.storage, location, target)
    intent = abandon(resources, target)
    monkeypatch.setattr(reservations, "EXPIRES_AFTER", timedelta(0))
    async with resources.database.write() as connection:
        await reservations.reserve(connection, intent.intent_id, [target])
        await moves.write_journal(connection, [moves.Move(location.name, "", "aa")])
    await intent_log.settle_all(resources)
    assert stored_files.full_path(resources.settings, target).exists()
    assert len(notes(resources)) == 1
    async with resources.database.write() as connection:
        await moves.write_journal(connection, [])
    await intent_log.settle_all(resources)
    assert notes(resources) == []
    await check_images(resources)


async def test_a_reservation_is_renewed_when_its_intent_is_settled(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own targets may be in the journal; those that it did not reserve may not."""
    location = await save(resources)
    targets = [ImageLocation(location.name, subfolder) for subfolder in ("aa", "bb")]
    intent = abandon(resources, *targets)
    monkeypatch.setattr(files, "remove", lambda *_: {targets[0]: OSError("busy")})
    async with resources.database.write() as connection:
        await reservations.reserve(connection, intent.intent_id, targets)
        await moves.write_journal(connection, [moves.Move(location.name, "", "aa")])
    before = await reservation_time(resources)
    await intent_log.settle_all(resources)
    after = await reservation_time(resources)
    assert after > before
    async with resources.database.write() as connection:
        await reservations.reserve(connection, intent.intent_id, targets[1:])
    before = await reservation_time(resources)
    await intent_log.settle_all(resources)
    assert await reservation_time(resources) == before


async def reservation_time(resources: Resources) -> float:
    async with resources.database.read() as connection:
        ((time, _),) = (await reservations._read(connection)).values()
    return time


async def test_a_reservation_that_is_committed_late_ends_with_its_intent(resources: Resources) -> None:
    """The connection was lost during the COMMIT, which the database has not ended yet."""
    other, inserted, go = open_database(resources.settings), asyncio.Event(), asyncio.Event()

    async def commit(intent: intent_log.Intent) -> None:
        async with other.write() as connection:
            await intent_log.reserve(connection, intent, [LEFT])
            inserted.set()
            await go.wait()

    with pytest.raises(CommitUnknown):
        async with intent_log.open_intent(resources) as intent:
            intent.create()
            committing = asyncio.create_task(commit(intent))
            await inserted.wait()
            asyncio.get_running_loop().call_later(0.2, go.set)  # for a reservation that would be read too early
            raise CommitUnknown(None, OSError("the connection is lost"))
    await committing
    await other.close()
    async with resources.database.read() as connection:
        assert await reservations.list_reserved(connection) == set()
    assert notes(resources) == []


async def test_records_are_read_after_the_exclusive_transaction(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long list does not hold up the writers, and is read once if no image could be moved."""
    write, reads, is_writing = type(resources.database).write, list[bool](), False

    @contextlib.asynccontextmanager
    async def note_write(self: Any) -> AsyncIterator[Any]:
        nonlocal is_writing
        async with write(self) as connection:
            is_writing = True
            yield connection
            is_writing = False

    async def note_read(connection: Any, selection: store.Selection) -> list[ImageLocation]:
        reads.append(is_writing)
        return await list_locations(connection, selection)

    list_locations = store.list_locations
    monkeypatch.setattr(type(resources.database), "write", note_write)
    monkeypatch.setattr(store, "list_locations", note_read)
    with pytest.raises(ValueError, match="failed"):
        async with intent_log.open_intent(resources) as intent:
            intent.write(IMAGES, [LEFT])
            raise ValueError("failed")
    assert reads == [False]
    assert notes(resources) == []


async def test_locations_are_reserved_while_files_of_a_moved_image_are_removed(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = await save(resources)
    target = ImageLocation(location.name, "aa")
    relocation.duplicate(resources.storage, location, target)
    abandon(resources, target)
    remove, reached, go_on = files.remove, threading.Event(), threading.Event()

    def remove_late(*arguments: Any) -> Any:
        reached.set()
        assert go_on.wait(30)
        return remove(*arguments)

    monkeypatch.setattr(files, "remove", remove_late)
    settling = asyncio.create_task(intent_log.settle_all(resources))
    assert await asyncio.to_thread(reached.wait, 30)
    async with resources.database.read() as connection:
        assert await reservations.list_reserved(connection) == {target}
    go_on.set()
    await settling
    async with resources.database.read() as connection:
        assert await reservations.list_reserved(connection) == set()
    await check_images(resources)
