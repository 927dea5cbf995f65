"""The workflows that come with the application: that they fit this version's nodes, and how a start puts them in place."""

import json
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from invokeclone.graph.invocations import registry
from invokeclone.graph.session.graph import Graph
from invokeclone.workflows import conversion, service
from tests.workflows.test_library import WORKFLOWS, add_default, make

FILES = sorted(service.DEFAULTS.glob("*.json"))
GIVEN: dict[str, Any] = {("img_resize", "image"): {"image_name": "a.png"}}
"""What a user has to choose first."""

KINDS = {"input", "internal"}
"""Fields that the editor shows; it complains of each that is missing or unknown."""


def read(file: Any) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))


def graph_of(workflow: dict[str, Any]) -> Graph:
    """Convert a workflow as the editor does before it enqueues, with the first value of each batch."""
    drawing = conversion.read(workflow["nodes"], workflow["edges"])
    batched = {
        node_id: node.values()[conversion.BATCHES[node.type]][0]
        for node_id, node in drawing.nodes.items()
        if node.type in conversion.BATCHES
    }
    values = {field: value for field, value in GIVEN.items() if field[0] in drawing.nodes}
    return Graph.model_validate(conversion.graph(drawing, batched, values))


def test_four_default_workflows_ship() -> None:
    assert len(FILES) == 4


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_default_workflow_matches_current_node_versions(file: Any) -> None:
    workflow = read(file)
    assert workflow["id"] == f"default_{file.stem}"
    assert workflow["meta"]["category"] == "default"
    assert all(workflow[key] for key in ("name", "description", "tags"))
    for node in workflow["nodes"]:
        cls = registry.get(node["data"]["type"])
        assert node["data"]["version"] == cls.ui_config.version
        hints = {name: field.json_schema_extra or {} for name, field in cls.model_fields.items()}
        visible = {
            name for name, hint in hints.items() if not hint.get("ui_hidden") and hint.get("field_kind") in KINDS
        }
        assert node["data"]["inputs"].keys() == visible


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_default_workflow_is_a_complete_valid_graph(file: Any) -> None:
    graph = graph_of(read(file))
    graph.validate_self()
    arriving = {(edge.destination.node_id, edge.destination.field) for edge in graph.edges}
    for node_id, node in graph.nodes.items():
        for name, _ in node.required_inputs:
            assert (node_id, name) in arriving or getattr(node, name) is not None, (node_id, name)
    assert [node_id for node_id, node in graph.nodes.items() if not node.is_intermediate] == ["l2i"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_default_workflow_has_a_readable_layout_and_a_form(file: Any) -> None:
    workflow = read(file)
    positions = [tuple(item["position"].values()) for item in workflow["nodes"]]
    assert all(
        abs(item[0] - other[0]) >= 320 or abs(item[1] - other[1]) >= 120
        for index, item in enumerate(positions)
        for other in positions[:index]
    )
    elements, root = workflow["form"]["elements"], workflow["form"]["rootElementId"]
    assert set(elements[root]["data"]["children"]) == set(elements) - {root}
    assert {item.get("parentId") for key, item in elements.items() if key != root} == {root}
    fields = conversion.find_exposed_inputs(workflow["form"], [])
    inputs = {item["id"]: item["data"]["inputs"] for item in workflow["nodes"]}
    assert len(fields) >= 6
    assert all(inputs[node_id][name]["label"] for node_id, name in fields)


def test_default_workflows_use_the_embedded_model() -> None:
    from invokeclone.models.install.embedded_model import EMBEDDED_KEY

    for file in FILES:
        (loader,) = [node for node in read(file)["nodes"] if node["data"]["type"] == "main_model_loader"]
        assert loader["data"]["inputs"]["model"]["value"]["key"] == EMBEDDED_KEY


async def test_first_start_installs_defaults_and_the_next_writes_nothing(client, resources) -> None:
    await service.start(resources)
    before = (await client.get(f"{WORKFLOWS}/", params={"categories": "default"})).json()["items"]
    assert {item["workflow_id"] for item in before} == {f"default_{file.stem}" for file in FILES}
    assert {(item["user_id"], item["is_public"]) for item in before} == {("system", False)}
    await service.start(resources)
    assert (await client.get(f"{WORKFLOWS}/", params={"categories": "default"})).json()["items"] == before


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_each_default_workflow_has_a_thumbnail(client, resources, file: Any) -> None:
    await service.start(resources)
    url = f"{WORKFLOWS}/i/default_{file.stem}"
    address = (await client.get(url)).json()["thumbnail_url"]
    assert address.startswith(f"{url.removeprefix('/')}/thumbnail?")
    listed = (await client.get(f"{WORKFLOWS}/")).json()["items"]
    assert address in [item["thumbnail_url"] for item in listed]
    answer = await client.get(f"/{address}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == file.with_suffix(".webp").read_bytes()
    thumbnail = Image.open(BytesIO(answer.content))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (256, 256))
    assert len(answer.content) < 10_000
    assert len(thumbnail.convert("RGB").getcolors(256 * 256) or []) > 100
    assert (await client.delete(f"{url}/thumbnail")).status_code == 403


async def test_changed_thumbnail_has_a_new_url(client, resources) -> None:
    name = await add_default(resources)
    url, file = f"{WORKFLOWS}/i/{name}", resources.settings.root / "defaults" / f"{name}.webp"
    assert (await client.get(url)).json()["thumbnail_url"] is None
    assert (await client.get(f"{url}/thumbnail")).status_code == 404
    addresses = []
    for content in (b"one", b"other"):
        file.write_bytes(content)
        await add_default(resources)
        addresses.append((await client.get(url)).json()["thumbnail_url"])
    assert None not in addresses
    assert addresses[0] != addresses[1]
    file.unlink()
    await add_default(resources)
    assert (await client.get(url)).json()["thumbnail_url"] is None


async def test_new_version_replaces_adds_and_removes_defaults(client, resources) -> None:
    user_workflow = await make(client, "mine")
    await add_default(resources, "default_old")
    await client.put(f"{WORKFLOWS}/i/default_old/opened_at")
    await add_default(resources, "default_gone")
    (resources.settings.root / "defaults" / "default_gone.json").unlink()
    before = (await client.get(f"{WORKFLOWS}/i/default_old")).json()
    await add_default(resources, "default_old", description="better")
    await add_default(resources, "default_new")
    after = (await client.get(f"{WORKFLOWS}/i/default_old")).json()
    assert after["workflow"]["description"] == "better"
    assert (after["opened_at"], after["created_at"]) == (before["opened_at"], before["created_at"])
    listed = (await client.get(f"{WORKFLOWS}/")).json()["items"]
    assert {item["workflow_id"] for item in listed} == {"default_old", "default_new", user_workflow["workflow_id"]}
