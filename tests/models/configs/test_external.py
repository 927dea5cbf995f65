"""Models behind somebody else's service: they are installed without files."""

from invokeclone.models.records.schemas import ModelRecordChanges
from tests.models.conftest import wait_for_end


async def install_source(installer, source, **changes):
    return await wait_for_end(await installer.add(source, ModelRecordChanges(**changes)))


async def test_an_external_model_is_installed_listed_changed_and_deleted(client, installer, resources):
    job = await install_source(
        installer, "external://openai/gpt-image/1", name="Painter", capabilities={"supports_seed": True}
    )
    assert job.status == "completed", job.error
    record = (await client.get("/i/openai-gpt-image-1")).json()
    assert (record["type"], record["format"], record["base"]) == (
        "external_image_generator",
        "external_api",
        "external",
    )
    assert (record["provider_id"], record["provider_model_id"], record["path"]) == ("openai", "gpt-image/1", "")
    assert (record["source_type"], record["source"]) == ("external", "external://openai/gpt-image/1")
    assert record["capabilities"]["supports_seed"] is True
    answer = await client.patch("/i/openai-gpt-image-1", json={"description": "d", "default_settings": {"width": 512}})
    assert (answer.json()["description"], answer.json()["default_settings"]["width"]) == ("d", 512)
    assert (await client.get("/missing")).json() == {"models": []}
    assert (await client.post("/i/openai-gpt-image-1/reidentify")).status_code == 404
    (resources.settings.models_path / "x").mkdir(parents=True)
    assert (await client.delete("/i/openai-gpt-image-1")).status_code == 204
    assert (await client.get("/")).json() == {"models": []}
    assert (resources.settings.models_path / "x").is_dir()


async def test_a_duplicate_external_model_is_refused(installer):
    first, second = [await install_source(installer, f"external://gemini/{name}") for name in ("a", "b")]
    again = await install_source(installer, "external://gemini/a")
    assert (first.status, second.status, again.status) == ("completed", "completed", "error")
    assert again.error_reason == "DuplicateModelException"


async def test_an_unknown_service_is_refused_at_once(client):
    """The reference accepts it and leaves a record that nothing can use."""
    answer = await client.post("/install", params={"source": "external://nope/x"}, json={})
    assert answer.status_code == 409
    assert "nope" in answer.json()["detail"]
    assert (await client.get("/install")).json() == []


async def test_path_traversal_in_a_name_is_not_followed(client, installer, resources):
    precious = resources.settings.models_path / "precious"
    precious.mkdir(parents=True)
    job = await install_source(installer, "external://openai/../../precious")
    assert job.status == "completed", job.error
    assert (await client.delete(f"/i/{job.config_out.key}")).status_code == 204
    assert precious.is_dir()


async def test_invalid_external_model_settings_are_refused(installer):
    job = await install_source(installer, "external://openai/x", type="main")
    assert (job.status, job.error_reason) == ("error", "InvalidModel")
