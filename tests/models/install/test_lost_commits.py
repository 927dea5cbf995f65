"""Models whose record may be stored though its transaction failed: files go only where it is known that it is not."""

import asyncio
from typing import Any

import pytest

from invokeclone.graph.vocabulary.taxonomy import ModelSourceType
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.transactions import CommitUnknown
from invokeclone.models.install.registration import Files, RegistrationRequest, register
from invokeclone.models.records import placement, staging, store
from invokeclone.models.records.guard import Guard
from tests.lost_commits import losing_commit


@pytest.mark.parametrize("canceled", [False, True])
@pytest.mark.parametrize(("stored", "reachable"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("files", [Files.COPIED, Files.MOVED, Files.OURS])
async def test_the_files_of_a_model_are_where_its_record_says(
    resources: Resources, make: Any, files: Files, *, stored: bool, reachable: bool, canceled: bool
) -> None:
    models = resources.settings.models_path
    source = make.checkpoint()
    if files is Files.OURS:
        models.mkdir(parents=True, exist_ok=True)
        source = source.rename(models / "ours.safetensors")
    request = RegistrationRequest(source, "source", ModelSourceType.Path, {"key": "k"}, files)
    error = asyncio.CancelledError() if canceled else None
    succeeds = stored and reachable and not canceled
    with losing_commit(resources.database, store, "add", stored=stored, reachable=reachable, error=error):
        if succeeds:
            await register(resources, Guard(), request)
        else:
            with pytest.raises(type(error) if error else CommitUnknown):
                await register(resources, Guard(), request)
    async with resources.database.read() as connection:
        recorded = [placement.to_absolute_path(models, path) for path in (await store.paths(connection)).values()]
    found = [path for path in models.rglob("*") if path.is_file() and path.name != staging.MARKER and path != source]
    assert found == recorded
    assert len(recorded) == stored
    assert source.exists() == (files is Files.COPIED or (files is Files.MOVED and not succeeds) or not stored)
