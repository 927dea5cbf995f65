"""A single file replaced by a folder: what moves over, and that nothing is lost when something fails."""

import asyncio
import threading
from pathlib import Path

import pytest
from PIL import Image

from invokeclone.models.records import relationships, store
from tests.applications import encode_image
from tests.models.conftest import Make


@pytest.fixture
def writes(workers):
    """Let the worker write a folder with the same UNet; return what it was told."""
    requests = []

    def write(body):
        requests.append(body)
        target = Path(body["target"])
        Make(target.parent).pipeline(target.name)
        return {}

    workers.one = write
    return requests


@pytest.fixture
async def old(install, make):
    job = await install(make.checkpoint(), inplace=False, description="mine", trigger_phrases=["cat"])
    return job.config_out


async def test_the_folder_replaces_the_file(client, resources, old, writes, install, make):
    models = resources.settings.models_path
    other = (await install(make.vae())).config_out.key
    async with resources.database.write() as connection:
        await relationships.add(connection, (min(old.key, other), max(old.key, other)))
    cover_png = encode_image(Image.new("RGB", (8, 8)))
    await client.patch(f"/i/{old.key}/image", files={"image": ("a.png", cover_png, "image/png")})

    answer = await client.put(f"/convert/{old.key}")
    assert answer.status_code == 200, answer.text
    new = answer.json()
    assert new["key"] != old.key
    assert (new["type"], new["format"], new["base"]) == ("main", "diffusers", "sd-1")
    assert (new["name"], new["description"], new["trigger_phrases"]) == (old.name, "mine", ["cat"])
    assert (new["source"], new["prediction_type"]) == (old.source, "epsilon")
    assert new["hash"].startswith("blake3:")
    assert new["cover_image"].startswith(f"api/v2/models/i/{new['key']}/image")
    assert (models / new["path"] / "model_index.json").is_file()
    assert new["path"] == new["key"]

    assert (await client.get(f"/i/{old.key}")).status_code == 404
    assert (await client.get(f"/i/{old.key}/image")).status_code == 404
    assert not (models / old.key).exists()
    async with resources.database.read() as connection:
        assert await relationships.list_related(connection, [other]) == [new["key"]]
    (body,) = writes
    assert body["path"] == str(models / old.path)
    assert (body["base"], body["prediction_type"], body["half"]) == ("sd-1", "epsilon", True)
    assert sorted(path.name for path in models.iterdir()) == sorted([new["key"], "model_images"])


async def test_a_file_outside_the_models_folder_stays(client, install, make, writes):
    path = make.checkpoint()
    key = (await install(path, inplace=True)).config_out.key
    assert (await client.put(f"/convert/{key}")).status_code == 200
    assert path.is_file()


async def test_an_unknown_model_is_a_failed_dependency(client, writes):
    answer = await client.put("/convert/nope")
    assert (answer.status_code, writes) == (424, [])


async def test_a_missing_file_is_a_failed_dependency(client, resources, old, writes):
    (resources.settings.models_path / old.path).unlink()
    answer = await client.put(f"/convert/{old.key}")
    assert (answer.status_code, writes) == (424, [])
    assert "missing" in answer.json()["detail"]


@pytest.mark.parametrize("build", [lambda make: make.vae(), lambda make: make.pipeline()])
async def test_other_models_cannot_be_converted(client, install, make, writes, build):
    key = (await install(build(make))).config_out.key
    answer = await client.put(f"/convert/{key}")
    assert (answer.status_code, writes) == (400, [])


async def check_untouched(client, resources, old):
    models = resources.settings.models_path
    assert (await client.get(f"/i/{old.key}")).status_code == 200
    assert (models / old.path).is_file()
    assert [path.name for path in models.iterdir()] == [old.key]
    async with resources.database.read() as connection:
        assert len(await store.search(connection)) == 1


async def test_worker_refusals_are_reported_and_nothing_changes(client, resources, old, workers):
    workers.one = lambda body: Path(body["target"]).mkdir() or {"refused": "its vae cannot be read"}
    answer = await client.put(f"/convert/{old.key}")
    assert answer.status_code == 400
    assert "its vae cannot be read" in answer.json()["detail"]
    await check_untouched(client, resources, old)


async def test_without_a_worker_nothing_changes(client, resources, old):
    assert (await client.put(f"/convert/{old.key}")).status_code == 503
    await check_untouched(client, resources, old)


async def test_an_invalid_converted_folder_is_discarded(client, resources, old, workers):
    def write(body):
        Path(body["target"]).mkdir()
        (Path(body["target"]) / "model_index.json").write_text("{}")

    workers.one = write
    assert (await client.put(f"/convert/{old.key}")).status_code == 400
    await check_untouched(client, resources, old)


async def test_a_model_is_locked_during_conversion(client, old, workers, writes):
    goes_on, begun = threading.Event(), threading.Event()
    write = workers.one

    def slow(body):
        begun.set()
        assert goes_on.wait(10)
        return write(body)

    workers.one = slow
    first = asyncio.create_task(client.put(f"/convert/{old.key}"))
    await asyncio.to_thread(begun.wait, 10)
    answers = [
        await client.put(f"/convert/{old.key}"),
        await client.delete(f"/i/{old.key}"),
        await client.patch(f"/i/{old.key}", json={"name": "x"}),
        await client.post(f"/i/{old.key}/reidentify"),
        await client.delete(f"/i/{old.key}/image"),
    ]
    goes_on.set()
    assert (await first).status_code == 200
    assert {answer.status_code for answer in answers} == {409}
