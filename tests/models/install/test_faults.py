"""An install of which one operation fails, whichever it is: installed or not, the files where they were, and the next works."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from invokeclone.kit.resources import Resources
from invokeclone.models.records import store
from tests.faults import Faults, strays


async def check(resources: Resources, source: Path, installed: bool) -> None:
    """Raise AssertionError unless records and files agree, and a model that is not installed is where it was."""
    async with resources.database.read() as connection:
        paths = {config.path for config in await store.search(connection)}
    folder = resources.settings.models_path
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == paths, (files, paths)
    assert source.exists() != installed
    assert await asyncio.to_thread(strays, resources.settings.root) == []


async def test_each_operation_of_an_install_may_fail(
    resources: Resources, install: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(monkeypatch, resources.settings.root)
    assert (await install(make.checkpoint("zero.safetensors"), inplace=False)).status == "completed"
    with faults.armed(0):
        assert (await install(make.checkpoint("one.safetensors"), inplace=False)).status == "completed"
    operations = faults.count
    assert operations >= 5
    for number in range(1, operations + 1):
        source = make.checkpoint(f"model{number}.safetensors")
        with faults.armed(number):
            job = await install(source, inplace=False)
        await check(resources, source, job.status == "completed")
        if job.status != "completed":
            assert job.error, faults.failed
            again = await install(source, inplace=False)
            assert again.status == "completed", (faults.failed, again.error)
            await check(resources, source, installed=True)
