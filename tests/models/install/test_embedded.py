"""The model that ships with the package."""

import json
import shutil

import pytest

from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.install.embedded_model import EMBEDDED, EMBEDDED_KEY, register_embedded
from invokeclone.models.records import store
from invokeclone.models.records.changes import remove
from invokeclone.models.records.guard import Guard


@pytest.fixture
def package(make):
    make.pipeline("model", cross_attention_dim=128)
    shutil.copy(EMBEDDED / "defaults.json", make.folder)
    return make.folder


async def search_records(resources):
    async with resources.database.read() as connection:
        return await store.search(connection)


def test_the_packages_defaults_are_valid():
    defaults = json.loads((EMBEDDED / "defaults.json").read_text())
    settings = MainModelDefaultSettings(**defaults["default_settings"])
    assert (defaults["name"], defaults["base"]) == ("Embedded Tiny", "sd-1")
    assert None not in (settings.width, settings.height, settings.steps, settings.cfg_scale, settings.scheduler)


async def test_the_embedded_model_is_registered_in_place_at_first_start(resources, package):
    config = await register_embedded(resources, package)
    assert (config.key, config.name, config.base, config.type, config.format) == (
        EMBEDDED_KEY,
        "Embedded Tiny",
        "sd-1",
        "main",
        "diffusers",
    )
    assert config.path == str(package / "model")
    assert config.prediction_type == "v_prediction"
    assert config.default_settings.steps == 20
    assert await search_records(resources) == [config]
    assert await register_embedded(resources, package) == config
    assert await search_records(resources) == [config]


async def test_a_deleted_embedded_model_is_not_registered_again(resources, package):
    await register_embedded(resources, package)
    await remove(resources, Guard(), EMBEDDED_KEY)
    assert (package / "model/model_index.json").exists()
    assert await register_embedded(resources, package) is None
    assert await search_records(resources) == []


async def test_missing_files_defer_registration(resources, make, package):
    assert await register_embedded(resources, make.folder / "nowhere") is None
    assert await register_embedded(resources, package) is not None


async def test_damaged_files_do_not_prevent_the_server_start(resources, package):
    (package / "model/model_index.json").write_text("{")
    assert await register_embedded(resources, package) is None
    assert await search_records(resources) == []


async def test_a_manually_registered_model_is_not_registered_again(resources, install, package):
    job = await install(package / "model", base="sd-1")
    assert await register_embedded(resources, package) is None
    assert await search_records(resources) == [job.config_out]


async def test_the_record_follows_a_package_that_moved_or_changed(resources, make, package, tmp_path):
    before = await register_embedded(resources, package)
    make.tensors("model/unet/diffusion_pytorch_model.safetensors", {"conv_in.weight": (3, 4, 3, 3)})
    moved = package.rename(tmp_path / "elsewhere")
    after = await register_embedded(resources, moved)
    assert (after.key, after.path) == (before.key, str(moved / "model"))
    assert after.hash != before.hash
    assert after.file_size > before.file_size
    assert await search_records(resources) == [after]
