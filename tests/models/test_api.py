"""Every route of the room, well and badly asked."""

import asyncio
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import update

from invokeclone.models.install.jobs import ModelInstallJob
from invokeclone.tables import models
from invokeclone.users.current import User, current_user

UNCHANGEABLE = ["pause", "resume", "restart_failed", "restart_file"]


def png(size=(600, 300), mode="RGB"):
    data = io.BytesIO()
    Image.new(mode, size, "red").save(data, format="png")
    return data.getvalue()


@pytest.fixture
async def model(install, make):
    """Install a checkpoint and return its record as JSON."""
    return (await install(make.checkpoint(), inplace=False)).config_out.model_dump(mode="json")


async def wait_for_end(client, number):
    while (job := (await client.get(f"/install/{number}")).json())["status"] in {"waiting", "running"}:
        await asyncio.sleep(0.005)
    return job


async def test_list_with_filters_and_order(client, install, make, model):
    other = (await install(make.vae("a-vae.safetensors"))).config_out.model_dump(mode="json")
    listed = (await client.get("/")).json()
    assert listed == {"models": [other, model]}
    for query, expected in [
        ("base_models=sd-1&base_models=sdxl", [other, model]),
        ("base_models=sdxl", []),
        ("model_type=vae", [other]),
        ("model_name=model", [model]),
        ("model_name=mod", []),
        ("model_format=checkpoint&direction=DESC", [model, other]),
        ("order_by=type", [model, other]),
    ]:
        assert (await client.get(f"/?{query}")).json()["models"] == expected, query
    for wrong in ("base_models=sd-9", "model_type=x", "order_by=x", "direction=up"):
        assert (await client.get(f"/?{wrong}")).status_code == 422


async def test_unreadable_records_are_omitted_from_the_list(client, resources, model):
    async with resources.database.write() as connection:
        await connection.execute(update(models).values(config="{"))
    assert (await client.get("/")).json() == {"models": []}
    assert (await client.get(f"/i/{model['key']}")).status_code == 404


async def test_get_by_key_attributes_and_hash(client, model):
    assert (await client.get(f"/i/{model['key']}")).json() == model
    assert (await client.get("/get_by_attrs?name=model&type=main&base=sd-1")).json() == model
    assert (await client.get("/get_by_hash", params={"hash": model["hash"]})).json() == model
    for missing in ("/i/nope", "/get_by_attrs?name=no&type=main&base=sd-1", "/get_by_hash?hash=no"):
        answer = await client.get(missing)
        assert answer.status_code == 404
        assert answer.json()["detail"]
    assert (await client.get("/get_by_attrs?name=model")).status_code == 422


async def test_patch_changes_only_given_fields(client, model):
    key = f"/i/{model['key']}"
    changes = {
        "name": "New",
        "description": "d",
        "trigger_phrases": ["b", "a", "b"],
        "default_settings": {"steps": 7},
        "source_url": "",
        "prediction_type": "v_prediction",
    }
    changed = (await client.patch(key, json=changes)).json()
    settings = dict.fromkeys(model["default_settings"]) | {"steps": 7}
    expected = model | changes | {"trigger_phrases": ["b", "a"], "default_settings": settings, "source_url": None}
    assert changed == expected
    assert (await client.get(key)).json() == expected
    cleared = (await client.patch(key, json={"description": None})).json()
    assert cleared == expected | {"description": None}
    assert (await client.patch(key, json={})).json() == cleared
    assert (await client.patch(key, json={"key": model["key"]})).json() == cleared


async def test_workers_are_notified_of_changed_and_deleted_records(client, model, resources):
    key = model["key"]
    await client.patch(f"/i/{key}", json={"name": "New"})
    await client.post(f"/i/{key}/reidentify")
    await client.delete(f"/i/{key}")
    event_keys = [event.keys for event in resources.events.sent if event.name == "models_changed"]
    assert event_keys == [[key], [key], [key]]


async def test_change_the_type(client, model):
    changed = (await client.patch(f"/i/{model['key']}", json={"type": "vae", "cpu_only": True})).json()
    assert (changed["type"], changed["cpu_only"]) == ("vae", True)
    assert "default_settings" not in changed


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"type": "lora"}, 409),
        ({"base": "flux"}, 409),
        ({"variant": "dev"}, 409),
        ({"default_settings": {"weight": 0.5}}, 409),
        ({"name": None}, 409),
        ({"path": ""}, 409),
        ({"path": "a\0b"}, 422),
        ({"key": "other"}, 422),
        ({"default_settings": {"width": 65}}, 409),
        ({"default_settings": {"steps": 0}}, 422),
        ({"source_url": "file:///etc/passwd"}, 422),
        ({"type": "nonsense"}, 422),
    ],
)
async def test_invalid_changes(client, model, changes, status):
    answer = await client.patch(f"/i/{model['key']}", json=changes)
    assert answer.status_code == status
    assert (await client.get(f"/i/{model['key']}")).json() == model


async def test_change_of_unknown_duplicate_and_busy_models(client, installer, install, make, model):
    other = (await install(make.vae())).config_out
    assert (await client.patch("/i/nope", json={"name": "x"})).status_code == 404
    assert (await client.patch(f"/i/{model['key']}", json={"path": other.path})).status_code == 409
    with installer.guard.lock(model["key"]):
        assert (await client.patch(f"/i/{model['key']}", json={"name": "x"})).status_code == 409


async def test_delete_removes_files_of_the_models_folder(client, resources, installer, model):
    model_folder = resources.settings.models_path / model["key"]
    assert model_folder.is_dir()
    with installer.guard.lock(model["key"]):
        assert (await client.delete(f"/i/{model['key']}")).status_code == 409
    answer = await client.delete(f"/i/{model['key']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not model_folder.exists()
    assert (await client.delete(f"/i/{model['key']}")).status_code == 404


async def test_delete_leaves_files_elsewhere(client, install, make):
    config = (await install(make.pipeline())).config_out
    assert (await client.delete(f"/i/{config.key}")).status_code == 204
    assert (make.folder / "pipeline/model_index.json").exists()


async def test_delete_after_a_path_change_keeps_other_models(client, resources, install, make, model):
    other = (await install(make.vae(), inplace=False)).config_out
    await client.patch(f"/i/{other.key}", json={"path": model["key"]})
    assert (await client.delete(f"/i/{other.key}")).status_code == 204
    assert (resources.settings.models_path / model["path"]).is_file()


async def test_bulk_delete(client, install, make, model):
    other = (await install(make.vae())).config_out
    answer = await client.post("/i/bulk_delete", json={"keys": [model["key"], "nope", other.key]})
    assert answer.json() == {
        "deleted": [model["key"], other.key],
        "failed": [{"key": "nope", "error": "no model with key nope"}],
    }
    assert (await client.get("/")).json() == {"models": []}
    assert (await client.post("/i/bulk_delete", json={})).status_code == 422


async def test_reidentify(client, resources, model):
    key = f"/i/{model['key']}"
    changes = {"name": "Mine", "description": "d", "trigger_phrases": ["x"], "default_settings": {"steps": 3}}
    before = (await client.patch(key, json={**changes, "variant": "inpaint"})).json()
    answer = await client.post(f"{key}/reidentify")
    assert (answer.status_code, answer.json()) == (200, before | {"variant": "normal"})
    assert (await client.get(key)).json() == answer.json()
    assert (await client.post("/i/nope/reidentify")).status_code == 404
    path = resources.settings.models_path / model["path"]
    path.write_bytes(path.read_bytes()[:50])
    answer = await client.post(f"{key}/reidentify")
    assert answer.status_code == 400
    path.unlink()
    assert (await client.post(f"{key}/reidentify")).status_code == 404
    assert (await client.get(key)).json() == before | {"variant": "normal"}


async def test_reidentify_keeps_a_base_stated_only_in_the_record(client, install, make):
    folder = make.pipeline(cross_attention_dim=128)
    before = (await install(folder, base="sd-1")).config_out.model_dump(mode="json")
    assert (await client.post(f"/i/{before['key']}/reidentify")).json() == before


async def test_reidentify_identifies_an_unknown_model(client, install, make, resources):
    config = (await install(make.checkpoint())).config_out
    unknown = config.model_dump(mode="json") | dict.fromkeys(("base", "type", "format"), "unknown")
    async with resources.database.write() as connection:
        await connection.execute(update(models).values(config=json.dumps(unknown), base="unknown", type="unknown"))
    result = (await client.post(f"/i/{config.key}/reidentify")).json()
    assert (result["base"], result["type"], result["key"], result["hash"]) == ("sd-1", "main", config.key, config.hash)
    assert (await client.get("/?base_models=sd-1")).json()["models"] == [result]


async def test_bulk_reidentify(client, model):
    answer = await client.post("/i/bulk_reidentify", json={"keys": [model["key"], "nope"]})
    assert answer.json() == {
        "succeeded": [model["key"]],
        "failed": [{"key": "nope", "error": "no model with key nope"}],
    }


async def test_model_images(client, model):
    url = f"/i/{model['key']}/image"
    assert (await client.get(url)).status_code == 404
    assert (await client.delete(url)).status_code == 404
    answer = await client.patch(url, files={"image": ("a.png", png(mode="RGBA"), "image/png")})
    assert (answer.status_code, answer.json()) == (200, None)
    answer = await client.get(url)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "max-age=31536000"
    assert answer.headers["content-disposition"] == f'inline; filename="{model["key"]}.png"'
    with Image.open(io.BytesIO(answer.content)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (256, 128))
    cover = (await client.get(f"/i/{model['key']}")).json()["cover_image"]
    assert cover.startswith(f"api/v2/models/i/{model['key']}/image?")
    assert (await client.get("/")).json()["models"][0]["cover_image"] == cover
    answer = await client.delete(url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get("/")).json()["models"] == [model]


@pytest.mark.parametrize("form", ["sgi", "eps", "icns"])
async def test_model_images_accept_the_upload_formats(client, model, form):
    """What the name and the content type say does not count."""
    data = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(data, format=form)
    answer = await client.patch(f"/i/{model['key']}/image", files={"image": ("a.png", data.getvalue(), "image/png")})
    assert answer.status_code == 415
    assert "image" in answer.json()["detail"]
    assert (await client.get(f"/i/{model['key']}/image")).status_code == 404


async def test_invalid_model_image_requests(client, model):
    good = {"image": ("a.png", png(), "image/png")}
    assert (await client.patch("/i/nope/image", files=good)).status_code == 404
    for data in (b"", b"text", png()[:60]):
        answer = await client.patch(f"/i/{model['key']}/image", files={"image": ("a.png", data, "image/png")})
        assert answer.status_code == 415
    assert (await client.patch(f"/i/{model['key']}/image")).status_code == 422
    assert (await client.get("/i/..%2F..%2Fx/image")).status_code == 404
    assert (await client.get(f"/i/{'x' * 300}/image")).status_code == 404


async def test_deleting_a_model_deletes_its_image(client, model, resources):
    await client.patch(f"/i/{model['key']}/image", files={"image": ("a.png", png(), "image/png")})
    await client.delete(f"/i/{model['key']}")
    assert list((resources.settings.models_path / "model_images").iterdir()) == []


async def test_scan_folder(client, install, make):
    installed = make.checkpoint("b.safetensors")
    await install(installed)
    await install(make.checkpoint("copied.safetensors"), inplace=False)
    await install(make.checkpoint("moved.safetensors"), inplace=False, move=True)
    make.pipeline()
    make.checkpoint("deep/er/c.gguf")
    make.checkpoint(".hidden/d.safetensors")
    make.json("notes.json", {})
    (make.folder / "circle").symlink_to(make.folder)
    (make.folder / "itself").symlink_to(make.folder / "itself")
    Path(os.fsdecode(bytes(make.folder) + b"/\xff.safetensors")).touch()
    results = (await client.get("/scan_folder", params={"scan_path": str(make.folder)})).json()
    base = make.folder.as_posix()
    assert results == [
        {"path": f"{base}/b.safetensors", "is_installed": True},
        {"path": f"{base}/copied.safetensors", "is_installed": True},
        {"path": f"{base}/deep/er/c.gguf", "is_installed": False},
        {"path": f"{base}/pipeline", "is_installed": False},
    ]


@pytest.mark.parametrize(
    "query", [{}, {"scan_path": "/no/such/folder"}, {"scan_path": ""}, {"scan_path": "a\0b"}, {"scan_path": "x" * 300}]
)
async def test_scan_of_an_invalid_folder_is_a_400(client, query):
    assert (await client.get("/scan_folder", params=query)).status_code == 400


async def test_install(client, make):
    path = make.checkpoint()
    query = {"source": str(path), "inplace": "true"}
    answer = await client.post("/install", params=query, json={"name": "N", "default_settings": {"width": 256}})
    assert answer.status_code == 201
    job = answer.json()
    assert job.keys() == ModelInstallJob.model_json_schema()["properties"].keys()
    assert job["source"] == {"path": str(path), "inplace": True, "type": "local"}
    assert (job["config_in"]["name"], job["config_in"]["source_type"], job["inplace"]) == ("N", "path", True)
    final = await wait_for_end(client, job["id"])
    assert (final["status"], final["config_out"]["name"], final["config_out"]["path"]) == ("completed", "N", str(path))
    assert final["config_out"]["default_settings"]["width"] == 256
    assert (await client.get("/install")).json() == [final]
    for word in UNCHANGEABLE:
        body = {"json": "https://a.example/x"} if word == "restart_file" else {}
        answer = await client.post(f"/install/{job['id']}/{word}", **body)
        assert (answer.status_code, answer.json()) == (201, final)
    answer = await client.delete(f"/install/{job['id']}")
    assert (answer.status_code, answer.json()) == (201, None)
    assert (await client.delete("/install")).status_code == 204
    assert (await client.get("/install")).json() == []


async def test_invalid_install_requests(client, make):
    path = str(make.checkpoint())
    assert (await client.post("/install", params={"source": "/no/such"}, json={})).status_code == 409
    assert (await client.post("/install", json={})).status_code == 422
    assert (await client.post("/install", params={"source": path})).status_code == 422
    assert (await client.post("/install", params={"source": path}, json={"type": "x"})).status_code == 422
    assert (await client.get("/install/77")).status_code == 404
    assert (await client.delete("/install/77")).status_code == 415
    for word in UNCHANGEABLE:
        body = {"json": "https://a.example/x"} if word == "restart_file" else {}
        assert (await client.post(f"/install/77/{word}", **body)).status_code == 415
    assert (await client.post("/install/77/restart_file", json="no address")).status_code == 422


async def test_missing_models(client, resources, model):
    assert (await client.get("/missing")).json() == {"models": []}
    (resources.settings.models_path / model["path"]).unlink()
    assert (await client.get("/missing")).json() == {"models": [model]}
    await client.patch(f"/i/{model['key']}", json={"path": "x" * 300})
    assert len((await client.get("/missing")).json()["models"]) == 1
    assert (await client.delete(f"/i/{model['key']}")).status_code == 204


async def test_orphans(client, resources, make, model):
    folder: Path = resources.settings.models_path
    lost = make.checkpoint("lost/a.safetensors")
    (make.folder / "lost").rename(folder / "orphan")
    (folder / "orphan/readme.md").write_text("x")
    (folder / "loose.safetensors").write_bytes(b"xy")
    (folder / "notes.txt").touch()
    (folder / ".download_cache").mkdir()
    (folder / ".download_cache/x.safetensors").touch()
    listed = (await client.get("/sync/orphaned")).json()
    assert listed == [
        {
            "path": "loose.safetensors",
            "absolute_path": f"{folder}/loose.safetensors",
            "files": ["loose.safetensors"],
            "size_bytes": 2,
        },
        {
            "path": "orphan",
            "absolute_path": f"{folder}/orphan",
            "files": ["a.safetensors"],
            "size_bytes": (folder / "orphan/a.safetensors").stat().st_size + 1,
        },
    ]
    assert not lost.exists()
    names = [
        "orphan",
        model["key"],
        "..",
        ".",
        "",
        "../x",
        "/etc",
        f"{model['key']}/model.safetensors",
        "nope",
        ".download_cache",
    ]
    answer = (await client.request("DELETE", "/sync/orphaned", json={"paths": names})).json()
    assert answer["deleted"] == ["orphan"]
    assert sorted(answer["errors"]) == sorted(names[1:])
    assert (folder / model["path"]).is_file()
    assert [entry["path"] for entry in (await client.get("/sync/orphaned")).json()] == ["loose.safetensors"]


async def test_files_of_a_running_installation_are_not_orphans(client, installer, resources, make):
    folder = resources.settings.models_path
    make.checkpoint("lost/a.safetensors")
    folder.mkdir(parents=True)
    (make.folder / "lost").rename(folder / "new")
    job = (
        await client.post("/install", params={"source": str(folder / "new/a.safetensors"), "inplace": True}, json={})
    ).json()
    assert (await client.get("/sync/orphaned")).json() == []
    await wait_for_end(client, job["id"])
    assert (await client.get("/sync/orphaned")).json() == []


async def test_a_missing_models_folder_has_no_orphans(client):
    assert (await client.get("/sync/orphaned")).json() == []


async def test_stats_of_all_workers(client, workers):
    assert (await client.get("/stats")).json() is None
    stats = {
        "hits": 1,
        "misses": 2,
        "high_watermark": 3,
        "in_cache": 1,
        "cleared": 0,
        "cache_size": 9,
        "loaded_model_sizes": {"a": 4},
    }
    workers.answers = [stats, stats | {"loaded_model_sizes": {"b": 5}}]
    assert (await client.get("/stats")).json() == {
        "hits": 2,
        "misses": 4,
        "high_watermark": 6,
        "in_cache": 2,
        "cleared": 0,
        "cache_size": 18,
        "loaded_model_sizes": {"a": 4, "b": 5},
    }


async def test_empty_model_cache(client, workers):
    answer = await client.post("/empty_model_cache")
    assert (answer.status_code, answer.json()) == (200, None)
    assert workers.asked == ["empty_model_cache"]


async def test_non_admins_may_only_read(app, client, model):
    app.dependency_overrides[current_user] = lambda: User(user_id="u")
    for path in ("/", "/missing", f"/i/{model['key']}", f"/get_by_hash?hash={model['hash']}"):
        assert (await client.get(path)).status_code == 200
    for method, path in [
        ("GET", "/install"),
        ("GET", "/scan_folder?scan_path=/"),
        ("GET", "/stats"),
        ("GET", "/starter_models"),
        ("DELETE", f"/i/{model['key']}"),
        ("GET", "/sync/orphaned"),
    ]:
        assert (await client.request(method, path)).status_code == 403
