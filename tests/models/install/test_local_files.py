"""Installation of local files: whatever happens to the model afterwards, the user's files stay as they were."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

import invokeclone
from invokeclone.kit.files import copies
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.install import embedded_model
from invokeclone.models.install.service import MoveInPlace
from invokeclone.models.records import store
from invokeclone.models.records.schemas import ModelRecordChanges
from tests.applications import encode_image, sample_image
from tests.models.conftest import Make, wait_for_end

LORA = {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)}


@pytest.fixture(params=["clone or link", "link", "bytes"])
def way(request, monkeypatch):
    """How files get into the models folder, which depends on the file system."""
    if request.param != "clone or link":
        monkeypatch.setattr(copies, "clone", lambda *_paths: False)
    if request.param == "bytes":
        monkeypatch.setattr(copies, "link", lambda *_paths: False)
    return request.param


def contents(folder: Path) -> dict[str, object]:
    """Return everything below a folder: the bytes of files, the targets of links."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def entries(resources) -> list[str]:
    models = resources.settings.models_path
    return sorted(path.name for path in models.iterdir()) if models.exists() else []


async def records(resources):
    async with resources.database.read() as connection:
        return await store.search(connection)


@pytest.fixture
def cache(make):
    """Build a Hugging Face cache: snapshots contain relative links to blobs."""
    repository = make.folder / "hub" / "models--owner--name"
    folder = make.pipeline("downloaded")
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        relative = file.relative_to(folder)
        file.rename(repository / "blobs" / str(number))
        link = snapshot / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (1 + len(relative.parts))) / "blobs" / str(number))
    shutil.rmtree(folder)
    assert ModelFiles(snapshot).class_name == "StableDiffusionPipeline"
    return snapshot


# What the user keeps


@pytest.mark.parametrize("build", [Make.checkpoint, Make.pipeline])
async def test_no_operation_on_the_installed_model_changes_the_source(
    client, resources, install, make, workers, way, build
):
    source = build(make)
    before = contents(make.folder)
    workers.one = lambda body: Make(Path(body["target"]).parent).pipeline(Path(body["target"]).name) and {}
    key = (await install(source, inplace=False)).config_out.key
    assert (await client.post(f"/i/{key}/reidentify")).status_code == 200
    cover = {"image": ("a.png", encode_image(sample_image()), "image/png")}
    assert (await client.patch(f"/i/{key}/image", files=cover)).status_code == 200
    assert (await client.patch(f"/i/{key}", json={"name": "x", "description": "y"})).status_code == 200
    converted = await client.put(f"/convert/{key}")
    key = converted.json()["key"] if converted.status_code == 200 else key
    assert (converted.status_code == 200) == source.is_file()
    assert contents(make.folder) == before
    assert (await client.delete(f"/i/{key}")).status_code == 204
    assert contents(make.folder) == before
    assert [name for name in entries(resources) if name != "model_images"] == []


async def test_the_installed_model_stays_when_the_source_is_deleted(resources, install, make, way):
    source = make.pipeline()
    config = (await install(source, inplace=False)).config_out
    shutil.rmtree(source)
    model = ModelFiles(resources.settings.models_path / config.path)
    model.check()
    names = {"config.json", "diffusion_pytorch_model.safetensors", "model_index.json", "scheduler_config.json"}
    assert {file.name for file in model.files} == names


@pytest.mark.parametrize("move", [False, True])
async def test_a_relative_link_is_resolved(resources, install, make, way, move):
    blob = make.checkpoint("blobs/x")
    link = make.folder / "snap" / "a.safetensors"
    link.parent.mkdir()
    link.symlink_to("../blobs/x")
    job = await install(link, inplace=False, move=move)
    assert (job.status, job.config_out.name, job.config_out.base) == ("completed", "a", "sd-1")
    installed = resources.settings.models_path / job.config_out.path
    assert not installed.is_symlink()
    assert installed.read_bytes() == blob.read_bytes()
    assert link.is_symlink() != move


@pytest.mark.parametrize("move", [False, True])
async def test_a_snapshot_of_a_hugging_face_cache_is_resolved(resources, install, cache, way, move):
    blobs = contents(cache.parents[1] / "blobs")
    job = await install(cache, inplace=False, move=move)
    config = job.config_out
    assert (job.status, config.name, config.base, config.type) == ("completed", "name", "sd-1", "main")
    folder = resources.settings.models_path / job.config_out.path
    assert [path for path in folder.rglob("*") if path.is_symlink()] == []
    shutil.rmtree(cache, ignore_errors=True)
    ModelFiles(folder).check()
    assert contents(cache.parents[1] / "blobs") == blobs


async def test_an_incomplete_cache_is_refused_and_stays(resources, install, cache):
    (cache.parents[1] / "blobs" / "3").unlink()
    before = contents(cache.parents[1])
    for move in (False, True):
        job = await install(cache, inplace=False, move=move)
        assert (job.status, job.error_reason) == ("error", "BrokenLink")
        assert "missing" in job.error
    assert contents(cache.parents[1]) == before
    assert entries(resources) == []


async def test_links_to_folders_are_copied_and_loops_skipped(resources, install, make):
    source = make.pipeline()
    shared = make.vae_folder("shared")
    (source / "vae").symlink_to("../shared")
    (source / "vae_again").symlink_to("vae")
    (source / "loop").symlink_to(source)
    job = await install(source, inplace=False, move=True)
    assert job.status == "completed"
    folder = resources.settings.models_path / job.config_out.path
    for name in ("vae", "vae_again"):
        assert contents(folder / name) == contents(shared)
    assert not (folder / "loop").exists()
    assert contents(shared).keys() == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert list(contents(source)) == ["loop"], "what was not installed stays"


async def test_moving_leaves_what_was_not_installed(install, make):
    source = make.pipeline()
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("mine")
    assert (await install(source, inplace=False, move=True)).status == "completed"
    assert {path for path, data in contents(source).items() if data} == {".git/config"}


# Folders with several models


async def test_a_folder_of_loras_is_refused_and_stays(resources, install, make):
    for name in ("a", "b", "c"):
        make.tensors(f"loras/{name}.safetensors", LORA)
    before = contents(make.folder)
    for options in ({}, {"move": True}, {"inplace": True}):
        job = await install(make.folder / "loras", **{"inplace": False, **options})
        assert job.status == "error"
        assert "folder of 3 models (a.safetensors, b.safetensors, c.safetensors)" in job.error
    assert contents(make.folder) == before
    assert entries(resources) == []


async def test_a_folder_without_marker_that_is_one_model_is_installed(install, make):
    make.tensors("my-lora/pytorch_lora_weights.safetensors", LORA)
    job = await install(make.folder / "my-lora", inplace=False)
    assert (job.status, job.config_out.type, job.config_out.format) == ("completed", "lora", "diffusers")


# The package's own files


@pytest.fixture
async def package(make, resources, monkeypatch):
    """Pretend that the package is in a folder of the test, and register its embedded model."""
    folder = make.folder / "package"
    make.pipeline("package/embedded/model", cross_attention_dim=128)
    shutil.copy(embedded_model.EMBEDDED / "defaults.json", folder / "embedded")
    monkeypatch.setattr(invokeclone, "__file__", str(folder / "__init__.py"))
    await embedded_model.register_embedded(resources, folder / "embedded")
    return folder


@pytest.mark.parametrize("models_dir", ["models", "."])
async def test_the_packages_files_survive_every_order_of_operations(
    client, resources, installer, install, package, workers, make, models_dir
):
    """Also if the models folder contains the package."""
    if models_dir == ".":
        resources.settings = resources.settings.model_copy(update={"models_dir": make.folder})
    before = contents(package)
    model, key = package / "embedded" / "model", embedded_model.EMBEDDED_KEY
    workers.one = lambda body: {"refused": "no"}
    inside = os.path.relpath(package, resources.settings.models_path)
    for options in ({}, {"inplace": True}, {"move": True}):
        for path in (None, "x/y", inside, f"{inside}/embedded", str(model)):
            if path is not None:
                await client.patch(f"/i/{key}", json={"path": path})
            await client.patch(f"/i/{key}", json={"format": "checkpoint"})
            await client.put(f"/convert/{key}")
            await client.delete(f"/i/{key}")
            await client.request("DELETE", "/sync/orphaned", json={"paths": ["package", "embedded"]})
            assert contents(package) == before
            job = await install(model, base="sd-1", **{"inplace": False, **options})
            assert contents(package) == before
            if options.get("move"):
                assert (job.status, "belongs to this program" in job.error) == ("error", True)
                job = await install(model, base="sd-1", inplace=False)
            assert job.status == "completed"
            key = job.config_out.key
            await client.post("/i/bulk_delete", json={"keys": [embedded_model.EMBEDDED_KEY]})
            assert contents(package) == before


# Refusals


async def test_sources_that_contain_the_models_folder_are_refused(resources, install):
    root = resources.settings.models_path.parent
    resources.settings.models_path.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text("{}")
    for move in (False, True):
        job = await install(root, inplace=False, move=move)
        assert (job.status, "contains the models folder" in job.error) == ("error", True)


@pytest.mark.parametrize("is_address", [False, True])
async def test_files_of_the_server_are_not_moved(resources, install, make, tmp_path, *, is_address):
    make.folder = tmp_path / "elsewhere" if is_address else resources.settings.outputs_path
    if is_address:
        resources.settings = resources.settings.model_copy(update={"storage_url": f"file://{make.folder}"})
    source = make.checkpoint()
    job = await install(source, inplace=False, move=True)
    assert (job.status, "belongs to this program" in job.error) == ("error", True)
    assert source.exists()


async def test_inplace_and_move_exclude_each_other(client, installer, make):
    path = str(make.checkpoint())
    with pytest.raises(MoveInPlace):
        await installer.add(path, ModelRecordChanges(), inplace=True, move=True)
    answer = await client.post("/install", params={"source": path, "inplace": True, "move": True}, json={})
    assert answer.status_code == 400


async def test_the_route_moves_only_if_asked(client, installer, make):
    for number, move in enumerate((None, False, True)):
        path = make.checkpoint(f"{number}.safetensors")
        query = {"source": str(path)} | ({} if move is None else {"move": move})
        answer = await client.post("/install", params=query, json={})
        job = await wait_for_end(installer.get(answer.json()["id"]))
        assert (job.status, path.exists()) == ("completed", not move)


# The models folder as source


async def test_a_file_in_the_models_folder_is_registered_where_it_is(resources, install, make):
    make.folder = resources.settings.models_path
    path = make.checkpoint("mine/a.safetensors")
    job = await install(path, inplace=False)
    assert (job.status, job.config_out.path) == ("completed", "mine/a.safetensors")
    assert entries(resources) == ["mine"]


async def test_a_file_in_the_models_folder_is_moved_if_asked(resources, install, make):
    make.folder = resources.settings.models_path
    path = make.checkpoint("mine/a.safetensors")
    job = await install(path, inplace=False, move=True)
    assert (job.status, job.config_out.path, path.exists()) == (
        "completed",
        f"{job.config_out.key}/a.safetensors",
        False,
    )


@pytest.mark.parametrize("folder", ["tmpinstall_1_0123456789ab", ".copying_1_x"])
async def test_a_file_in_a_temporary_folder_is_copied(resources, install, make, folder):
    """The folder is removed with the job that made it, or at the next start."""
    make.folder = resources.settings.models_path
    path = make.checkpoint(f"{folder}/a.safetensors")
    refused = await install(path, inplace=True)
    assert (refused.error_reason, "temporary folder" in refused.error) == ("RefusedModel", True)
    job = await install(path, inplace=False)
    assert job.config_out.path == f"{job.config_out.key}/a.safetensors"
    assert path.exists()


@pytest.mark.parametrize("inplace", [True, False])
async def test_deleting_a_model_keeps_other_files_of_a_folder_with_its_key(resources, install, make, inplace):
    make.folder = resources.settings.models_path
    other = make.checkpoint("k/other.safetensors")
    job = await install(make.checkpoint("k/a.safetensors"), inplace=inplace, key="k")
    assert job.error_reason == "DuplicateModelException"
    other.unlink()
    assert (await install(make.folder / "k/a.safetensors", inplace=inplace, key="k")).status == "completed"


async def test_deleting_a_part_keeps_the_model_around_it(client, install, make, resources):
    make.folder = resources.settings.models_path
    folder = make.pipeline("whole")
    await install(folder)
    part = await install(make.vae_folder("whole/vae"))
    before = contents(folder)
    assert (await client.delete(f"/i/{part.config_out.key}")).status_code == 204
    assert contents(folder) == before


# Duplicates


async def test_the_same_source_is_installed_once(resources, install, make, way):
    path = make.checkpoint()
    first = await install(path, inplace=False)
    for options in ({"inplace": False}, {"inplace": True}, {"inplace": False, "move": True}):
        job = await install(path, **options)
        assert (job.error_reason, path.exists()) == ("DuplicateModelException", True)
        assert f"as model {first.config_out.key}" in job.error
    assert entries(resources) == [first.config_out.key]


async def test_a_changed_source_is_installed_again(install, make, way):
    path = make.checkpoint()
    await install(path, inplace=False)
    path.unlink()
    assert (await install(make.vae(path.name), inplace=False)).status == "completed"


async def test_two_jobs_for_one_source(resources, installer, make):
    path = make.checkpoint()
    links = [path, make.folder / "." / ".." / make.folder.name / path.name, make.folder / "link.safetensors"]
    links[2].symlink_to(path)
    jobs = [await installer.add(str(link), ModelRecordChanges()) for link in links]
    await asyncio.gather(*map(wait_for_end, jobs))
    assert [job.status for job in jobs] == ["completed", "error", "error"]
    assert len(entries(resources)) == 1


# Names


@pytest.mark.parametrize("name", ["ж" * 121 + ".safetensors", "x" * 243 + ".safetensors", "e\u0301 %s #?.safetensors"])
async def test_names(resources, install, make, way, name):
    source = make.checkpoint(name)
    job = await install(source, inplace=False)
    assert (job.status, job.config_out.path) == ("completed", f"{job.config_out.key}/{name}")
    assert (resources.settings.models_path / job.config_out.path).read_bytes() == source.read_bytes()


async def test_a_name_that_is_not_text_is_refused(installer, make):
    path = os.fsdecode(bytes(make.checkpoint().parent) + b"/\xff.safetensors")
    os.rename(make.folder / "model.safetensors", path)
    job = await wait_for_end(await installer.add(path, ModelRecordChanges()))
    assert (job.status, "not valid UTF-8" in (job.error or "")) == ("error", True)
    assert os.path.exists(path)


async def test_a_special_file_in_a_folder_is_not_read(install, make):
    source = make.pipeline()
    os.mkfifo(source / "pipe")
    assert (await install(source, inplace=False)).status == "completed"
