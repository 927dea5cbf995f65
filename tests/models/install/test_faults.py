"""An install of which one operation fails, whichever it is: installed or not, the files where they were, and the next works."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from invokeclone.kit.resources import Resources
from invokeclone.models.records import staging, store
from tests.faults import Faults, strays


async def check(resources: Resources, source: Path, data: bytes) -> None:
    """Raise AssertionError unless records and files agree, and the source is as it was."""
    async with resources.database.read() as connection:
        configs = await store.search(connection)
    paths, keys = {config.path for config in configs}, {config.key for config in configs}
    folder = resources.settings.models_path
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    files = {file for file in files if not file.endswith(staging.MARKER) or Path(file).parent.name not in keys}
    assert files == paths, (files, paths)
    assert source.read_bytes() == data
    assert await asyncio.to_thread(strays, resources.settings.root) == []


@pytest.mark.sqlite("makes operations of SQLite's driver fail")
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
        data = source.read_bytes()
        with faults.armed(number):
            job = await install(source, inplace=False)
        await check(resources, source, data)
        if job.status != "completed":
            assert job.error, faults.failed
            again = await install(source, inplace=False)
            assert again.status == "completed", (faults.failed, again.error)
            await check(resources, source, data)
