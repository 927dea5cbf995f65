"""Installations from a web address and from Hugging Face: all their states, and what is left on disk and in the database."""

import asyncio
import errno
import json
import stat

import pytest

from invokeclone.downloads.partial_file import PartialFile
from invokeclone.downloads.queue import DownloadQueue
from invokeclone.models.install import journal, service
from invokeclone.models.install.embedded_model import EMBEDDED_KEY
from invokeclone.models.install.jobs import LocalModelSource
from invokeclone.models.install.service import Installer, UnknownPart
from invokeclone.models.records import store
from invokeclone.models.records.placement import DOWNLOAD_PREFIX
from invokeclone.models.records.schemas import ModelRecordChanges
from tests.fake_downloads import done, until


@pytest.fixture
def checkpoint(make):
    return make.checkpoint().read_bytes()


@pytest.fixture
def pipeline(make):
    folder = make.pipeline()
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def install(installer):
    async def run(source, token=None, **changes):
        return await done(await installer.add(source, ModelRecordChanges(**changes), access_token=token))

    return run


def refuse_at_once(*_arguments):
    raise OSError(errno.ENOSPC, "the disk is full")


async def refuse(*_arguments):
    refuse_at_once()


async def records(resources):
    async with resources.database.read() as connection:
        return await store.search(connection)


async def journal_entries(resources):
    async with resources.database.read() as connection:
        return await journal.entries(connection)


def inside(resources):
    models = resources.settings.models_path
    return sorted(path.relative_to(models).as_posix() for path in models.rglob("*")) if models.exists() else []


async def wait_for_cleanup(resources):
    """Wait until nothing is left of ended installations."""
    await until(lambda: not any(name.startswith(DOWNLOAD_PREFIX) for name in inside(resources)))
    for _ in range(100):
        if not await journal_entries(resources):
            return
        await asyncio.sleep(0.01)


async def test_from_a_web_address(resources, events, install, fake_web, checkpoint):
    fake_web.page("/dl/42", checkpoint, headers={"Content-Disposition": 'attachment; filename="my model.safetensors"'})
    job = await install(f"{fake_web.url}/dl/42", name="Mine")
    assert (job.status, job.error) == ("completed", None)
    config = job.config_out
    assert (config.name, config.source, config.source_type, config.base) == (
        "Mine",
        f"{fake_web.url}/dl/42",
        "url",
        "sd-1",
    )
    assert config.path == f"{config.key}/my model.safetensors"
    await wait_for_cleanup(resources)
    assert inside(resources) == [config.key, config.path]
    assert [part.status for part in job.download_parts] == ["completed"]
    event_names = [name for name in events.names() if name.startswith("model_install") and "progress" not in name]
    assert event_names == [
        "model_install_download_started",
        "model_install_downloads_complete",
        "model_install_started",
        "model_install_complete",
    ]
    started = next(e for e in events.sent if e.name == "model_install_download_started").model_dump(mode="json")
    assert started.keys() == {"timestamp", "id", "source", "local_path", "bytes", "total_bytes", "parts"}
    assert started["source"] == {"type": "url", "url": f"{fake_web.url}/dl/42", "access_token": None}
    assert started["total_bytes"] == len(checkpoint)
    assert started["parts"][0].keys() == {"url", "local_path", "bytes", "total_bytes"}


async def test_from_hugging_face(resources, install, fake_hub, pipeline):
    fake_hub.repository("owner/name", pipeline | {"README.md": b"read me", "big.ckpt": b"x"})
    job = await install("owner/name")
    assert (job.status, job.error) == ("completed", None)
    config = job.config_out
    assert (config.name, config.source, config.source_type) == ("name", "owner/name", "hf_repo_id")
    assert json.loads(config.source_api_response)["id"] == "owner/name"
    assert job.source_metadata.is_diffusers
    model_folder = resources.settings.models_path / config.key
    assert {path.relative_to(model_folder).as_posix() for path in model_folder.rglob("*") if path.is_file()} == set(
        pipeline
    )
    assert len(job.download_parts) == len(pipeline)
    await wait_for_cleanup(resources)
    assert await records(resources) == [config]


async def test_a_part_of_a_repository(resources, install, fake_hub, pipeline, checkpoint, make):
    vae = make.vae_folder("vae")
    files = {f"vae/{path.name}": path.read_bytes() for path in vae.iterdir()}
    fake_hub.repository("owner/name", pipeline | files | {"single/a.safetensors": checkpoint})
    job = await install("owner/name::vae")
    assert (job.error, job.config_out.type, job.config_out.name) == (None, "vae", "name_vae")
    model_folder = resources.settings.models_path / job.config_out.path
    assert sorted(path.name for path in model_folder.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    job = await install("owner/name::single/a.safetensors")
    assert (job.error, job.config_out.source) == (None, "owner/name::single/a.safetensors")
    assert job.config_out.path == f"{job.config_out.key}/a.safetensors"


async def test_variants(resources, install, fake_hub, make, pipeline):
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    files = pipeline | {half: make.tensors("half.safetensors", {"conv_in.weight": (2, 4, 3, 3)}).read_bytes()}
    fake_hub.repository("owner/name", files)
    names = {}
    for source in ("owner/name:fp16", "owner/name"):
        job = await install(source)
        assert job.error is None
        unet = resources.settings.models_path / job.config_out.path / "unet"
        names[source] = {path.name for path in unet.iterdir() if path.suffix == ".safetensors"}
    full = {"diffusion_pytorch_model.safetensors"}
    assert names == {"owner/name:fp16": {"diffusion_pytorch_model.fp16.safetensors"}, "owner/name": full}


async def test_failures_before_the_download_starts(resources, install, fake_hub, events):
    fake_hub.repository("owner/empty", {"README.md": b"x"})
    fake_hub.repository("owner/evil", {"../../evil.safetensors": b"x", "model.safetensors": b"x"})
    fake_hub.repository("owner/closed", {"model.safetensors": b"x"}, token="t")
    for source, kind in {
        "owner/empty": "NothingToInstall",
        "owner/evil::../../evil.safetensors": "DownloadFailed",
        "owner/none": "DownloadFailed",
        "../no-such-thing": "NotARepository",
        "owner/closed": "AccessDenied",
    }.items():
        job = await install(source)
        assert (job.status, job.error_reason, job.error_traceback) == ("error", kind, None), source
        assert events.names().count("model_install_error") == 1, events.names()
        events.sent.clear()
        assert job.error
    assert await records(resources) == []
    assert not (resources.settings.models_path.parent / "evil.safetensors").exists()


async def test_tokens(resources, install, fake_hub, fake_web, checkpoint, installer):
    """The one given wins; without one the login's is sent, and to Hugging Face alone."""
    fake_hub.repository("owner/closed", {"model.safetensors": checkpoint}, token="login")
    fake_web.page("/elsewhere.safetensors", checkpoint)
    fake_web.page("/api/whoami-v2", b"{}", token="login")
    assert (await install("owner/closed", token="login", key="a")).error is None
    assert await installer.hub.login("login") == "valid"
    job = await install("owner/closed", key="b")
    assert (job.error, "login" in job.model_dump_json(exclude={"error_traceback"})) == (None, False)
    url = f"{fake_web.url.replace('127.0.0.1', 'localhost')}/elsewhere.safetensors"
    assert (await install(url)).error is None
    assert "Authorization" not in fake_web.asked_for("/elsewhere.safetensors")[0]
    await install(f"{fake_web.url}/elsewhere.safetensors")
    assert fake_web.asked_for("/elsewhere.safetensors")[1]["Authorization"] == "Bearer login"


async def test_a_hub_file_page_url_installs_the_file(install, fake_hub, checkpoint):
    fake_hub.repository("owner/name", {"model.safetensors": checkpoint})
    job = await install(f"{fake_hub.web.url}/owner/name/blob/c0ffee/model.safetensors")
    assert (job.error, job.config_out.base) == (None, "sd-1")


async def test_a_web_page_is_refused(resources, install, fake_web):
    fake_web.page("/model.safetensors", b"<!doctype html>", headers={"Content-Type": "text/html"})
    job = await install(f"{fake_web.url}/model.safetensors")
    assert (job.status, job.error_reason) == ("error", "NotAModelFile")
    assert "is a web page" in job.error


async def test_a_file_without_a_model_is_refused(resources, installer, install, fake_web):
    fake_web.page("/model.safetensors", b"not one")
    job = await install(f"{fake_web.url}/model.safetensors")
    assert (job.status, job.error_reason) == ("error", "InvalidModel")
    await until(lambda: not any("model.safetensors" in name for name in inside(resources)))
    await installer.prune()
    assert inside(resources) == []


async def test_a_failed_file_pauses_the_others_and_can_be_restarted(
    resources, installer, events, fake_hub, pipeline, downloads
):
    weights = "unet/diffusion_pytorch_model.safetensors"
    fake_hub.repository("owner/name", pipeline)
    fake_hub.page("owner/name", weights).hold_after = 10
    broken = fake_hub.page("owner/name", "unet/config.json")
    broken.statuses = [404]
    job = await done(await installer.add("owner/name", ModelRecordChanges()))
    assert (job.status, job.error_reason, job.config_out) == ("error", "DownloadFailed", None)
    assert {part.status for part in job.download_parts} <= {"error", "paused", "completed"}
    fake_hub.page("owner/name", weights).hold_after = None
    assert (await installer.restart_failed(job.id)) is job
    assert (job.status in {"waiting", "downloading"}, job.error) == (True, None)
    await done(job)
    assert (job.status, job.error) == ("completed", None)
    assert events.names().count("model_install_error") == 1


async def test_restart_one_file(installer, fake_hub, pipeline):
    weights = "unet/diffusion_pytorch_model.safetensors"
    fake_hub.repository("owner/name", pipeline)
    fake_hub.page("owner/name", weights).hold_after = 10
    job = await installer.add("owner/name", ModelRecordChanges())
    part = None
    await until(lambda: job.download_parts)
    part = next(part for part in job.download_parts if str(part.source).endswith("unet/" + weights.rpartition("/")[2]))
    await until(lambda: part.bytes == 10)
    fake_hub.page("owner/name", weights).hold_after = None
    with pytest.raises(UnknownPart):
        await installer.restart_file(job.id, "http://a/b")
    await installer.restart_file(job.id, str(part.source))
    await done(job)
    assert (job.status, job.error) == ("completed", None)
    request_headers = fake_hub.web.asked_for(fake_hub.path("owner/name", weights))
    assert [headers.get("Range") for headers in request_headers] == [None, None]


async def test_a_file_that_cannot_be_restarted_fails_the_job(installer, fake_web, checkpoint, monkeypatch):
    page = fake_web.page("/m.safetensors", checkpoint, hold_after=100)
    job = await installer.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges())
    await until(lambda: job.bytes == 100)
    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "drop", refuse_at_once)
        with pytest.raises(OSError, match="full"):
            await installer.restart_file(job.id, f"{fake_web.url}/m.safetensors")
    assert (job.status, job.error_reason) == ("error", "OSError")
    page.hold_after = None
    await installer.restart_failed(job.id)
    assert (await done(job)).status == "completed"


async def test_pause_and_resume(resources, installer, fake_web, checkpoint):
    page = fake_web.page("/model.safetensors", checkpoint, hold_after=100)
    job = await installer.add(f"{fake_web.url}/model.safetensors", ModelRecordChanges())
    await until(lambda: job.bytes == 100)
    assert job.status == "downloading"
    await installer.pause(job.id)
    assert (job.status, job.download_parts[0].status) == ("paused", "paused")
    assert [entry.paused for entry in await journal_entries(resources)] == [True]
    await asyncio.sleep(0.05)
    assert job.status == "paused"
    page.hold_after = None
    await installer.resume(job.id)
    assert [entry.paused for entry in await journal_entries(resources)] == [False]
    await done(job)
    assert (job.status, job.error) == ("completed", None)
    assert fake_web.asked_for("/model.safetensors")[-1]["Range"] == "bytes=100-"


async def test_pause_while_planning(installer, fake_hub, fake_web, checkpoint):
    fake_hub.repository("owner/name", {"model.safetensors": checkpoint})
    plan = fake_web.pages["/api/models/owner/name?blobs=true"]
    plan.hold_after = 5
    job = await installer.add("owner/name", ModelRecordChanges())
    await until(lambda: fake_web.asked)
    await installer.pause(job.id)
    plan.go.set()
    await asyncio.sleep(0.05)
    assert (job.status, job.download_parts) == ("paused", [])
    await installer.resume(job.id)
    assert (await done(job)).status == "completed"


async def test_cancel_while_downloading(resources, installer, events, fake_web, checkpoint, downloads):
    fake_web.page("/model.safetensors", checkpoint, hold_after=100)
    job = await installer.add(f"{fake_web.url}/model.safetensors", ModelRecordChanges())
    await until(lambda: job.bytes == 100)
    assert len(await journal_entries(resources)) == 1
    assert any(name.startswith(DOWNLOAD_PREFIX) for name in inside(resources))
    await installer.cancel(job.id)
    assert job.status == "cancelled"
    await wait_for_cleanup(resources)
    assert inside(resources) == []
    assert await journal_entries(resources) == []
    assert "model_install_cancelled" in events.names()
    assert downloads.jobs()[0].status == "cancelled"
    await installer.cancel(job.id)
    await installer.restart_failed(job.id)
    await installer.restart_file(job.id, f"{fake_web.url}/model.safetensors")
    assert job.status == "cancelled"
    assert events.names().count("model_install_cancelled") == 1


async def test_cancel_while_planning_and_cancel_of_a_part(
    resources, installer, fake_hub, fake_web, checkpoint, downloads
):
    fake_hub.repository("owner/name", {"model.safetensors": checkpoint})
    fake_web.pages["/api/models/owner/name?blobs=true"].hold_after = 5
    job = await installer.add("owner/name", ModelRecordChanges())
    await until(lambda: fake_web.asked)
    await installer.cancel(job.id)
    assert job.status == "cancelled"
    fake_web.page("/model.safetensors", checkpoint, hold_after=100)
    job = await installer.add(f"{fake_web.url}/model.safetensors", ModelRecordChanges())
    await until(lambda: job.bytes == 100)
    downloads.cancel_all()
    assert job.status == "cancelled"
    await wait_for_cleanup(resources)
    assert inside(resources) == []


async def test_one_job_for_one_source(installer, fake_web, checkpoint):
    page = fake_web.page("/model.safetensors", checkpoint, hold_after=100)
    first, second = [await installer.add(f"{fake_web.url}/model.safetensors", ModelRecordChanges()) for _ in range(2)]
    page.go.set()
    assert first is second
    assert (await done(first)).status == "completed"


async def test_prune_removes_jobs_downloads_and_folders(resources, installer, fake_web, checkpoint, downloads):
    fake_web.page("/model.safetensors", checkpoint, statuses=[404])
    job = await done(await installer.add(f"{fake_web.url}/model.safetensors", ModelRecordChanges()))
    assert job.status == "error"
    downloads.prune()
    assert downloads.jobs() == []
    await installer.restart_failed(job.id)
    await done(job)
    assert job.status == "completed"
    failed = await done(await installer.add(f"{fake_web.url}/nowhere", ModelRecordChanges()))
    assert failed.status == "error"
    await installer.prune()
    assert (installer.jobs(), downloads.jobs(), await journal_entries(resources)) == ([], [], [])
    await wait_for_cleanup(resources)


class Restart:
    """Ends an installer in the middle of things and starts the next one."""

    def __init__(self, resources, events):
        self.resources = resources
        self.events = events
        self.running = []

    async def begin(self):
        downloads = DownloadQueue(self.resources.settings, self.events, initial_retry_delay=0.01)
        installer = Installer(self.resources, downloads, persistent=True)
        await installer.start()
        self.running.append((installer, downloads))
        return installer

    async def end(self):
        for installer, downloads in self.running:
            await installer.stop()
            await downloads.stop()
        self.running.clear()


@pytest.fixture
async def restart(resources, events, fake_hub):
    restarter = Restart(resources, events)
    yield restarter
    await restarter.end()


async def test_downloads_continue_after_a_server_restart(restart, resources, fake_hub, pipeline, fake_web):
    weights = "unet/diffusion_pytorch_model.safetensors"
    fake_hub.repository("owner/name", pipeline)
    page = fake_hub.page("owner/name", weights)
    page.hold_after = 10
    installer = await restart.begin()
    job = await installer.add("owner/name", ModelRecordChanges(name="N", key="my-key"))
    await until(lambda: [part.status for part in job.download_parts].count("completed") == len(pipeline) - 1)
    await restart.end()
    fake_web.asked.clear()
    page.hold_after = None
    installer = await restart.begin()
    (job,) = installer.jobs()
    assert job.source.repo_id == "owner/name"
    await done(job)
    assert (job.status, job.error, job.config_out.name, job.config_out.key) == ("completed", None, "N", "my-key")
    assert [path for path, _ in fake_web.asked] == [fake_hub.path("owner/name", weights)]
    await wait_for_cleanup(resources)
    assert await journal_entries(resources) == []


async def test_url_downloads_continue_with_their_token_after_a_restart(restart, resources, fake_web, checkpoint):
    """The token lies beside the files for its owner alone, not in the database."""
    page = fake_web.page("/dl/7", checkpoint, token="secret", hold_after=100)
    page.headers["Content-Disposition"] = "attachment; filename=m.safetensors"
    installer = await restart.begin()
    job = await installer.add(f"{fake_web.url}/dl/7", ModelRecordChanges(), access_token="secret")
    await until(lambda: job.bytes == 100)
    (entry,) = await journal_entries(resources)
    assert "secret" not in repr(entry)
    file = resources.settings.models_path / entry.folder / ".token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await restart.end()
    page.hold_after = None
    (job,) = (await restart.begin()).jobs()
    await done(job)
    assert (job.status, job.error, job.config_out.name) == ("completed", None, "m")
    assert fake_web.asked_for("/dl/7")[-1]["Range"] == "bytes=100-"


async def test_paused_and_failed_jobs_survive_a_restart(restart, resources, fake_web, checkpoint):
    page = fake_web.page("/a.safetensors", checkpoint, hold_after=100)
    fake_web.page("/b.safetensors", checkpoint, statuses=[404])
    installer = await restart.begin()
    paused = await installer.add(f"{fake_web.url}/a.safetensors", ModelRecordChanges())
    await until(lambda: paused.bytes == 100)
    await installer.pause(paused.id)
    failed = await done(await installer.add(f"{fake_web.url}/b.safetensors", ModelRecordChanges()))
    await restart.end()
    page.hold_after = None
    installer = await restart.begin()
    first, second = installer.jobs()
    await asyncio.sleep(0.05)
    assert (first.status, second.status, second.error) == ("paused", "error", failed.error)
    await installer.resume(first.id)
    await installer.restart_failed(second.id)
    assert [(await done(job)).status for job in (first, second)] == ["completed", "completed"]


async def test_a_crash_between_moving_and_recording(restart, resources, fake_web, checkpoint):
    """The files are brought back to where they came from, and registered."""
    fake_web.page("/m.safetensors", checkpoint, hold_after=100)
    installer = await restart.begin()
    job = await installer.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges(key="k"))
    await until(lambda: job.bytes == 100)
    await asyncio.sleep(0.05)
    await restart.end()
    (entry,) = await journal_entries(resources)
    models = resources.settings.models_path
    (models / "k").mkdir()
    (models / "k/m.safetensors").write_bytes(checkpoint)
    fake_web.asked.clear()
    (job,) = (await restart.begin()).jobs()
    await done(job)
    assert (job.status, job.error, job.config_out.path, fake_web.asked) == ("completed", None, "k/m.safetensors", [])
    assert entry.key == "k"


async def test_rows_of_local_installations_of_earlier_versions_are_dropped(restart, resources):
    models = resources.settings.models_path
    (models / "k").mkdir(parents=True)
    (models / "k/a.safetensors").touch()
    entry = journal.InstallEntry(
        f"{DOWNLOAD_PREFIX}1_x", "k", LocalModelSource(path="/a.safetensors").model_dump_json(), "{}"
    )
    async with resources.database.write() as connection:
        await journal.save(connection, entry)
    installer = await restart.begin()
    assert (installer.jobs(), await journal_entries(resources)) == ([], [])
    assert inside(resources) == ["k", "k/a.safetensors"]


async def test_files_not_created_by_the_download_are_kept(restart, resources, fake_web, checkpoint):
    """A folder that happens to have the name of the key is not taken for what was moved."""
    fake_web.page("/m.safetensors", checkpoint, hold_after=100)
    installer = await restart.begin()
    job = await installer.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges(key="k"))
    await until(lambda: job.bytes == 100)
    await restart.end()
    other = resources.settings.models_path / "k/other.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"mine")
    fake_web.pages["/m.safetensors"].hold_after = None
    (job,) = (await restart.begin()).jobs()
    await done(job)
    assert (job.status, job.error_reason, other.read_bytes()) == ("error", "DuplicateModelException", b"mine")


async def test_leftovers_of_a_killed_download_are_excluded_from_the_model(restart, resources, fake_hub, pipeline):
    fake_hub.repository("owner/name", pipeline)
    page = fake_hub.page("owner/name", "unet/diffusion_pytorch_model.safetensors")
    page.hold_after = 10
    installer = await restart.begin()
    job = await installer.add("owner/name", ModelRecordChanges())
    await until(lambda: [part.status for part in job.download_parts].count("completed") == len(pipeline) - 1)
    await restart.end()
    (entry,) = await journal_entries(resources)
    (resources.settings.models_path / entry.folder / "name/unet/.config.json.1234.part").write_bytes(b"x")
    page.hold_after = None
    (job,) = (await restart.begin()).jobs()
    await done(job)
    model = resources.settings.models_path / job.config_out.path
    assert {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()} == set(pipeline)


async def test_a_job_that_cannot_be_saved_is_not_started(resources, installer, fake_web, checkpoint, monkeypatch):
    fake_web.page("/m.safetensors", checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "save", refuse)
        with pytest.raises(OSError, match="full"):
            await installer.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges())
    assert (installer.jobs(), fake_web.asked, inside(resources)) == ([], [], [])
    job = await done(await installer.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges()))
    assert job.status == "completed"


async def test_a_cancelled_job_has_no_row_after_the_response(resources, installer, fake_web, checkpoint):
    fake_web.page("/m.safetensors", checkpoint, hold_after=100)
    job = await installer.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges())
    await until(lambda: job.bytes == 100)
    await installer.cancel(job.id)
    assert await journal_entries(resources) == []


async def test_a_row_that_cannot_be_removed_is_removed_at_the_end(
    restart, resources, fake_web, checkpoint, monkeypatch
):
    fake_web.page("/m.safetensors", checkpoint)
    installer = await restart.begin()
    with monkeypatch.context() as patch:
        patch.setattr(journal, "remove", refuse)
        job = await done(await installer.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges(key="k")))
        await asyncio.sleep(0.05)
        assert (job.status, len(await journal_entries(resources))) == ("completed", 1)
    await restart.end()
    assert (await journal_entries(resources), inside(resources)) == ([], ["k", "k/m.safetensors"])


async def test_an_unreadable_models_folder_does_not_block_installation(restart, fake_web, checkpoint, monkeypatch):
    monkeypatch.setattr(service, "list_missing", refuse)
    fake_web.page("/m.safetensors", checkpoint)
    job = await (await restart.begin()).add(f"{fake_web.url}/m.safetensors", ModelRecordChanges())
    assert (await done(job)).status == "completed"


async def test_a_crash_after_recording_leaves_only_temporary_files(restart, resources, fake_web, checkpoint):
    page = fake_web.page("/m.safetensors", checkpoint)
    job = await done(await (await restart.begin()).add(f"{fake_web.url}/m.safetensors", ModelRecordChanges(key="k")))
    assert job.status == "completed"
    await wait_for_cleanup(resources)
    await restart.end()
    folder = resources.settings.models_path / f"{DOWNLOAD_PREFIX}1_x"
    folder.mkdir()
    async with resources.database.write() as connection:
        await journal.save(connection, journal.InstallEntry(folder.name, "k", job.source.model_dump_json(), "{}"))
    orphan = resources.settings.models_path / f"{DOWNLOAD_PREFIX}999999999_0123456789ab"
    orphan.mkdir()
    installer = await restart.begin()
    assert installer.jobs() == []
    assert await journal_entries(resources) == []
    assert not orphan.exists()
    assert len(page.data) == len(checkpoint)


async def test_unreadable_journal_entries_are_skipped(restart, resources):
    for folder, source in (("a", "nonsense"), ("b", '{"type": "local", "path": "/x"}'), ("c", "{}")):
        async with resources.database.write() as connection:
            await journal.save(connection, journal.InstallEntry(folder, "k", source, "{}"))
    assert (await restart.begin()).jobs() == []
    assert await journal_entries(resources) == []


async def test_without_a_server_no_journal_is_written(resources, fake_web, fake_hub, checkpoint):
    """As `invokeclone models install` does it; a server that starts meanwhile leaves its folder alone."""
    page = fake_web.page("/m.safetensors", checkpoint, hold_after=100)
    alone = Installer(resources)
    await alone.start()
    job = await alone.add(f"{fake_web.url}/m.safetensors", ModelRecordChanges())
    await until(lambda: job.bytes == 100)
    assert await journal_entries(resources) == []
    page.go.set()
    await done(job)
    await alone.stop()
    assert (job.status, job.config_out.key == EMBEDDED_KEY) == ("completed", False)
    assert inside(resources) == [job.config_out.key, job.config_out.path]
