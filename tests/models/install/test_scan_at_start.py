"""`scan_models_on_startup`: what lies in the models folder and no record knows is installed where it lies."""

import asyncio

import pytest

from invokeclone.models.install import scan
from invokeclone.models.install.service import Installer
from invokeclone.models.records import store
from invokeclone.models.records.placement import DOWNLOAD_PREFIX
from invokeclone.server.app import create_app


@pytest.fixture
async def found(resources, installer):
    async def run():
        before = len(installer.jobs())
        await scan.install_unregistered(resources, installer)
        jobs = installer.jobs()[before:]
        while not all(job.ended for job in jobs):
            await asyncio.sleep(0.005)
        return {job.local_path.relative_to(resources.settings.models_path).as_posix(): job.status for job in jobs}

    return run


async def test_unregistered_models_are_installed_once(resources, installer, make, install, found):
    models = make.folder = resources.settings.models_path
    assert await found() == {}
    existing = await install(make.checkpoint("known/a.safetensors"))
    moved = await install(make.checkpoint("b.safetensors"), inplace=False)
    assert (existing.status, moved.status) == ("completed", "completed")
    make.checkpoint("mine/new.safetensors")
    make.pipeline("folder")
    for path in (f"{DOWNLOAD_PREFIX}1_x/c.safetensors", ".hidden/d.safetensors", "model_images/e.safetensors"):
        make.checkpoint(path)
    (models / "notes.txt").write_text("x")
    assert await found() == {"mine/new.safetensors": "completed", "folder": "completed"}
    async with resources.database.read() as connection:
        paths = set((await store.paths(connection)).values())
    assert {"mine/new.safetensors", "folder"} <= paths
    assert (models / "mine/new.safetensors").is_file()
    assert await found() == {}


async def test_a_damaged_model_does_not_stop_the_scan(resources, make, found):
    make.folder = resources.settings.models_path
    make.checkpoint("good.safetensors")
    (make.folder / "bad.safetensors").write_bytes(b"x")
    assert await found() == {"good.safetensors": "completed", "bad.safetensors": "error"}


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_server_scans_at_startup_only_if_enabled(settings, make, wanted):
    make.folder = settings.models_path
    make.checkpoint("mine.safetensors")
    app = create_app(settings.model_copy(update={"scan_models_on_startup": wanted}), worker_command=None)
    async with app.router.lifespan_context(app):
        jobs = app.services.get(Installer).jobs()
        assert [job.local_path.name for job in jobs] == (["mine.safetensors"] if wanted else [])
