"""Install jobs: every way they end, and what is on disk and in the database then."""

import asyncio
import errno
import os

import pytest

from invokeclone.models.errors import ModelBusy
from invokeclone.models.install.jobs import UnsupportedSource, parse_source
from invokeclone.models.install.service import Installer, NoInstallToChange, UnknownInstall
from invokeclone.models.records import placement, store
from invokeclone.models.records.schemas import ModelRecordChanges


async def records(resources):
    async with resources.database.read() as connection:
        return await store.search(connection)


def inside(resources):
    models = resources.settings.models_path
    return sorted(path.relative_to(models).as_posix() for path in models.rglob("*")) if models.exists() else []


async def test_install_in_place(resources, events, install, make):
    path = make.checkpoint()
    job = await install(path)
    assert (job.status, job.error, job.inplace) == ("completed", None, True)
    assert job.bytes == job.total_bytes == path.stat().st_size
    config = job.config_out
    assert (config.path, config.source, config.source_type, config.name) == (str(path), str(path), "path", "model")
    assert config.hash.startswith("blake3:")
    assert config.file_size == path.stat().st_size
    assert await records(resources) == [config]
    assert path.exists()
    assert inside(resources) == []
    assert events.names() == ["model_install_started", "model_install_complete"]
    started, complete = (event.model_dump(mode="json") for event in events.sent)
    assert started.keys() == {"timestamp", "id", "source"}
    assert started["source"] == {"path": str(path), "inplace": True, "type": "local"}
    assert (complete["key"], complete["config"]["key"], complete["total_bytes"]) == (config.key, config.key, job.bytes)


@pytest.mark.parametrize("move", [False, True])
async def test_install_into_the_models_folder(resources, install, make, move):
    path = make.checkpoint("my.safetensors")
    data = path.read_bytes()
    job = await install(path, inplace=False, move=move, name="Mine", description="d", key="my-key")
    config = job.config_out
    assert (config.key, config.path, config.name, config.description) == (
        "my-key",
        "my-key/my.safetensors",
        "Mine",
        "d",
    )
    assert config.source == str(path)
    assert path.exists() != move
    assert (resources.settings.models_path / config.path).read_bytes() == data
    assert inside(resources) == ["my-key", "my-key/my.safetensors"]
    assert job.local_path == resources.settings.models_path / "my-key/my.safetensors"


@pytest.mark.parametrize("move", [False, True])
async def test_install_of_a_folder(resources, install, make, move):
    source = make.pipeline()
    job = await install(source, inplace=False, move=move)
    assert source.exists() != move
    assert job.config_out.path == job.config_out.key
    assert job.config_out.name == "pipeline"
    assert (resources.settings.models_path / job.config_out.key / "model_index.json").is_file()


async def test_config_in_is_kept(install, make):
    job = await install(make.checkpoint(), description="d")
    assert job.config_in.model_dump(exclude_none=True) == {
        "source": str(job.source),
        "source_type": "path",
        "description": "d",
    }


async def test_unknown_models_follow_the_setting(resources, events, make):
    path = make.tensors("x.safetensors", {"x": (1,)})
    strict = type(resources)(
        resources.settings.model_copy(update={"allow_unknown_models": False}), resources.database, events
    )
    for current_resources, expected in ((strict, "error"), (resources, "completed")):
        installer = Installer(current_resources)
        await installer.start()
        job = await installer.add(str(path), ModelRecordChanges(), inplace=True)
        while not job.ended:
            await asyncio.sleep(0.005)
        assert job.status == expected
        await installer.stop()
    assert [config.base for config in await records(resources)] == ["unknown"]


async def fails(resources, install, path, *, inplace=False, move=False, **changes):
    """Install, and check that nothing but the job has changed; return the job."""

    def files():
        return sorted(file for file in path.parent.rglob("*") if not file.name.startswith("invokeai.db"))

    before, records_before = files(), await records(resources)
    job = await install(path, inplace=inplace, move=move, **changes)
    assert (job.status, job.config_out) == ("error", None)
    assert job.error
    assert "Traceback" in job.error_traceback
    assert files() == before
    assert await records(resources) == records_before
    return job


async def test_damaged_files(resources, events, install, make):
    path = make.checkpoint()
    os.truncate(path, 100)
    job = await fails(resources, install, path)
    assert job.error_reason == "InvalidModel"
    assert events.names() == ["model_install_started", "model_install_error"]
    assert events.sent[1].model_dump(mode="json") | {"timestamp": 0} == {
        "timestamp": 0,
        "id": job.id,
        "source": {"path": str(path), "inplace": False, "type": "local"},
        "error_type": "InvalidModel",
        "error": job.error,
    }
    assert inside(resources) == []


async def test_paths_without_a_model_are_refused(resources, install, make):
    (make.folder / "empty").mkdir(parents=True)
    (make.folder / "notes.txt").write_text("x")
    (make.folder / "old.ckpt").write_bytes(b"x")
    for name, reason in (("empty", "is not a model folder"), ("notes.txt", "not a model file"), ("old.ckpt", "pickle")):
        assert reason in (await fails(resources, install, make.folder / name)).error


async def test_mismatched_stated_fields_are_refused(resources, install, make):
    job = await fails(resources, install, make.checkpoint(), base="sdxl")
    assert "its base is sdxl, the model's is sd-1" in job.error


@pytest.mark.parametrize("key", ["../x", "a/b", "..", ".hidden", "model_images", "a\\b", "k" * 201, "a\0b"])
async def test_keys_must_be_plain_names(resources, install, make, key):
    assert "plain file name" in (await fails(resources, install, make.checkpoint(), key=key)).error


async def test_duplicate_paths(resources, install, make):
    path = make.checkpoint()
    await install(path)
    link = make.folder / "link.safetensors"
    link.symlink_to(path)
    for again, inplace in ((path, True), (path, False), (link, True)):
        assert (await fails(resources, install, again, inplace=inplace)).error_reason == "DuplicateModelException"


async def test_duplicate_keys(resources, install, make):
    await install(make.checkpoint("a.safetensors"), key="k")
    job = await fails(resources, install, make.checkpoint("b.safetensors"), key="k")
    assert job.error_reason == "DuplicateModelException"


async def test_parts_of_registered_models_are_not_moved(resources, install, make):
    folder = make.pipeline()
    await install(folder)
    part = make.vae_folder("pipeline/vae")
    assert "is inside the registered model" in (await fails(resources, install, part, move=True)).error
    assert (await install(part)).status == "completed"


async def test_the_models_folder_itself_is_not_moved(resources, install):
    models = resources.settings.models_path
    models.mkdir(parents=True)
    (models / "config.json").write_text("{}")
    assert "contains the models folder" in (await fails(resources, install, models)).error


async def test_a_disk_error_fails_the_install(resources, install, make, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    job = await fails(resources, install, make.checkpoint())
    assert (job.error_reason, inside(resources)) == ("OSError", [])


@pytest.mark.parametrize("move", [False, True])
async def test_copies_are_removed_when_the_record_cannot_be_written(resources, install, make, monkeypatch, move):
    async def refuse(*_args):
        raise RuntimeError("no")

    monkeypatch.setattr(store, "add", refuse)
    job = await fails(resources, install, make.pipeline(), move=move)
    assert (job.error_reason, inside(resources)) == ("RuntimeError", [])


def test_source_syntax(make):
    def parse(text):
        source = parse_source(text, inplace=True, access_token="t").model_dump(mode="json")
        source.pop("access_token", None)
        return source

    path = str(make.checkpoint())
    assert parse(f'"{path}"') == {"type": "local", "path": path, "inplace": True}
    hf = {"type": "hf", "repo_id": "o/n", "variant": None, "subfolder": None}
    assert parse("o/n") == hf
    assert parse("o/n:fp16") == hf | {"variant": "fp16"}
    assert parse("o/n:fp16:unet") == hf | {"variant": "fp16", "subfolder": "unet"}
    assert parse("o/n::a/b.safetensors") == hf | {"subfolder": "a/b.safetensors"}
    assert parse("https://a.example/b") == {"type": "url", "url": "https://a.example/b"}
    assert parse("external://openai/m") == {"type": "external", "provider_id": "openai", "provider_model_id": "m"}
    for text in ("", "nothing", "/no/such/file", "o/n:best", "ftp://a/b", "https://", "a\0b", "x" * 5000):
        with pytest.raises(UnsupportedSource):
            parse(text)


async def test_one_job_for_one_source(resources, make):
    installer = Installer(resources)
    path = str(make.checkpoint())
    first = await installer.add(path, ModelRecordChanges())
    assert await installer.add(path, ModelRecordChanges()) is first
    await installer.cancel(first.id)
    assert await installer.add(path, ModelRecordChanges()) is not first
    await installer.start()
    await installer.stop()


async def test_cancel_pause_resume_and_prune(resources, events, make):
    installer = Installer(resources)
    first = await installer.add(str(make.checkpoint("a.safetensors")), ModelRecordChanges(), inplace=True)
    second = await installer.add(str(make.checkpoint("b.safetensors")), ModelRecordChanges(), inplace=True)
    await installer.cancel(first.id)
    assert (first.status, events.names()) == ("cancelled", ["model_install_cancelled"])
    assert (await installer.pause(second.id)).status == "paused"
    await installer.start()
    await asyncio.sleep(0.05)
    assert (await installer.resume(second.id)).status == "waiting"
    while not second.ended:
        await asyncio.sleep(0.005)
    assert (first.status, second.status) == ("cancelled", "completed")
    await installer.cancel(second.id)
    for unchanged in (installer.pause, installer.resume, installer.restart_failed):
        assert (await unchanged(second.id)).status == "completed"
    assert (await installer.restart_file(second.id, "http://a/b")).status == "completed"
    assert installer.jobs() == [first, second]
    await installer.prune()
    assert installer.jobs() == []
    with pytest.raises(UnknownInstall):
        installer.get(second.id)
    with pytest.raises(NoInstallToChange):
        await installer.cancel(second.id)
    for work in (installer.pause, installer.resume, installer.restart_failed):
        with pytest.raises(NoInstallToChange):
            await work(second.id)
    await installer.stop()


async def test_cancel_while_running(resources, events, installer, make, monkeypatch):
    reading, going_on = asyncio.Event(), asyncio.Event()

    async def slow(*_args):
        reading.set()
        await going_on.wait()
        return []

    monkeypatch.setattr(store, "list_installed_files", slow)
    path = make.checkpoint()
    job = await installer.add(str(path), ModelRecordChanges())
    await reading.wait()
    await installer.cancel(job.id)
    going_on.set()
    while not job.ended:
        await asyncio.sleep(0.005)
    assert (job.status, job.error) == ("cancelled", None)
    assert events.names() == ["model_install_started", "model_install_cancelled"]
    assert path.exists()
    assert await records(resources) == []


async def test_stopping_keeps_waiting_jobs(resources, make):
    installer = Installer(resources)
    jobs = [await installer.add(str(make.checkpoint(f"{n}.safetensors")), ModelRecordChanges()) for n in range(3)]
    await installer.start()
    await installer.stop()
    assert {job.status for job in jobs} <= {"waiting", "cancelled"}
    assert await records(resources) == []


async def test_partial_copies_of_a_crash_are_removed_at_start(resources, make):
    half = resources.settings.models_path / f"{placement._COPY_PREFIX}k"
    half.mkdir(parents=True)
    installer = Installer(resources)
    await installer.start()
    await installer.stop()
    assert inside(resources) == []


async def test_log_lines_identify_the_installation(resources, install, make, logged):
    job = await install(make.checkpoint())
    failed = await fails(resources, install, make.checkpoint("b.safetensors"), key=job.config_out.key)
    lines = [vars(record) for record in logged if record.name == "invokeclone.models"]
    installed, broken = (line for line in lines if line.get("action") == "install_model")
    assert (installed["key"], broken["install_id"]) == (job.config_out.key, failed.id)
    assert installed["install_id"] != broken["install_id"]


async def test_missing_files_are_logged_at_start(resources, install, make, lines):
    path = make.checkpoint()
    await install(path)
    path.unlink()
    installer = Installer(resources)
    await installer.start()
    await installer.stop()
    assert [line for line in lines if "the files of model model are missing" in line]


async def test_a_key_in_use_is_refused(resources, installer, install, make):
    with installer.guard.lock("k"):
        job = await install(make.checkpoint(), key="k")
        with pytest.raises(ModelBusy), installer.guard.lock("k"):
            pass
    assert (job.status, job.error_reason) == ("error", "ModelBusy")
    assert (await install(make.checkpoint(), key="k")).status == "completed"
