"""Installation of local files that fails on the way, is canceled, or crashes: nothing is left, and nothing is lost."""

import asyncio
import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from invokeclone.kit.files import copies
from invokeclone.models.install import installation
from invokeclone.models.install.service import Installer
from invokeclone.models.records import staging
from invokeclone.models.records.schemas import ModelRecordChanges
from tests.models.conftest import wait_for_end
from tests.models.install.test_local_files import contents, entries, records


@pytest.mark.parametrize("move", [False, True])
async def test_a_disk_that_becomes_full_leaves_nothing(resources, install, make, bytes_only, monkeypatch, move):
    source = make.pipeline()
    before = contents(make.folder)
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    job = await install(source, inplace=False, move=move)
    assert (job.status, job.error_reason) == ("error", "OSError")
    assert (contents(make.folder), entries(resources), await records(resources)) == (before, [], [])
    assert (await install(source, inplace=False, move=move)).status == "completed"


async def test_a_disk_without_room_is_noticed_before_anything_is_copied(
    resources, install, make, bytes_only, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 99, 1))
    job = await install(make.checkpoint(), inplace=False)
    assert (job.status, job.error_reason, entries(resources)) == ("error", "DiskTooFull", [])


async def test_a_file_that_may_not_be_read_is_an_error(resources, install, make, bytes_only, monkeypatch):
    source = make.pipeline()
    opened = Path.open

    def refuse(path, *args, **options):
        if path == source / "unet" / "config.json" and args[:1] == ("rb",):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    job = await install(source, inplace=False)
    assert (job.status, job.error_reason, entries(resources)) == ("error", "PermissionError", [])
    assert "unet/config.json" in job.error


@pytest.mark.parametrize("kind", ["deleted", "changed"])
async def test_a_source_that_disappears_or_changes_during_the_copy(
    resources, install, make, bytes_only, monkeypatch, kind
):
    source = make.pipeline()
    last = source / "unet" / "diffusion_pytorch_model.safetensors"
    copy = copies._copy_bytes

    def disturb(file, target, checkpoint):
        if file.relative.name == "model_index.json":
            last.unlink()
            if kind == "changed":
                last.write_bytes(b"another")
        copy(file, target, checkpoint)

    monkeypatch.setattr(copies, "_copy_bytes", disturb)
    job = await install(source, inplace=False)
    assert (job.status, entries(resources)) == ("error", [])
    assert ("removed" if kind == "deleted" else "changed") in job.error


async def test_a_copy_that_cannot_be_loaded_is_not_registered(resources, install, make, bytes_only, monkeypatch):
    """As on a disk that loses what is written to it."""
    source = make.checkpoint()
    copy = copies._copy_bytes

    def damage(file, target, checkpoint):
        copy(file, target, checkpoint)
        os.truncate(target, 100)

    monkeypatch.setattr(copies, "_copy_bytes", damage)
    job = await install(source, inplace=False, move=True)
    assert (job.status, job.error_reason, entries(resources)) == ("error", "InvalidModel", [])
    assert source.exists()


async def test_a_source_that_cannot_be_removed_is_installed(resources, install, make, monkeypatch, lines):
    source = make.checkpoint()

    def refuse(*_args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(copies, "remove_source", refuse)
    job = await install(source, inplace=False, move=True)
    assert (job.status, source.exists()) == ("completed", True)
    assert [line for line in lines if "its source cannot be removed" in line]


async def test_a_source_changed_after_the_copy_is_not_removed(install, make, monkeypatch):
    source = make.checkpoint()
    publish = staging.publish

    def change(*args):
        source.unlink()
        source.write_bytes(b"new")
        return publish(*args)

    monkeypatch.setattr(staging, "publish", change)
    assert (await install(source, inplace=False, move=True)).status == "completed"
    assert source.read_bytes() == b"new"


# Progress, cancellation, crashes


async def test_a_copy_reports_progress(events, install, make, bytes_only, monkeypatch):
    monkeypatch.setattr(installation, "PROGRESS_INTERVAL_S", 0)
    monkeypatch.setattr(copies, "_CHUNK", 100)
    source = make.checkpoint()
    job = await install(source, inplace=False)
    assert job.status == "completed"
    assert events.names()[0] == "model_install_started"
    assert events.names()[-1] == "model_install_complete"
    progress = [event for event in events.sent if event.name == "model_install_download_progress"]
    assert len(progress) > 2
    assert {event.total_bytes for event in progress} == {source.stat().st_size}
    copied = [event.bytes for event in progress]
    assert copied == sorted(copied)
    assert copied[-1] == source.stat().st_size


@pytest.mark.parametrize("stop", [False, True])
async def test_a_copy_can_be_canceled(resources, installer, make, bytes_only, monkeypatch, stop):
    """By a client, and by the server's end; the event loop is free meanwhile."""
    monkeypatch.setattr(copies, "_CHUNK", 100)
    copying, going_on = asyncio.Event(), threading.Event()
    loop, copy = asyncio.get_running_loop(), copies._copy_bytes

    def slow(file, target, checkpoint):
        def wait(done):
            loop.call_soon_threadsafe(copying.set)
            assert going_on.wait(30)
            checkpoint(done)

        copy(file, target, wait)

    monkeypatch.setattr(copies, "_copy_bytes", slow)
    source = make.checkpoint()
    job = await installer.add(str(source), ModelRecordChanges(), move=True)
    await copying.wait()
    end = asyncio.create_task(installer.stop()) if stop else asyncio.create_task(installer.cancel(job.id))
    await asyncio.sleep(0)
    going_on.set()
    await end
    await wait_for_end(job)
    assert (job.status, source.exists()) == ("cancelled", True)
    assert (entries(resources), await records(resources)) == ([], [])


async def test_leftovers_of_crashes_are_removed_at_start(resources, install, make):
    models = resources.settings.models_path
    key = (await install(make.checkpoint(), inplace=False)).config_out.key
    dead = "99999999"
    for name, pid in ((key, dead), ("gone", dead), ("running", str(os.getppid())), ("user", "mine")):
        (models / name).mkdir(exist_ok=True)
        (models / name / staging.MARKER).write_text(pid)
    (models / f".copying_{dead}_x" / "deep").mkdir(parents=True)
    installer = Installer(resources)
    await installer.start()
    await installer.stop()
    assert entries(resources) == sorted([key, "running", "user"])
    assert [path.name for path in (models / key).iterdir()] == ["model.safetensors"]


async def test_download_folders_of_another_program_are_kept(resources):
    """InvokeAI uses names with the same prefix, and may share the models folder."""
    models = resources.settings.models_path
    for name in ("tmpinstall_4n3k2w", "tmpinstall_4_mine", "tmpinstall_99999999_0123456789ab"):
        (models / name).mkdir(parents=True)
    installer = Installer(resources, persistent=True)
    await installer.start()
    await installer.stop()
    assert entries(resources) == ["tmpinstall_4_mine", "tmpinstall_4n3k2w"]
