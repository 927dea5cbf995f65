"""ControlNets and T2I-Adapters in a request for images: which models they are, what is refused, and the graph."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from invokeclone.graph.invocations import registry
from invokeclone.kit.sql.database import Database
from invokeclone.queue import generation
from invokeclone.queue.batches import expand
from tests.queue.test_generation import add, resolve_request

NET: dict[str, Any] = {"type": "controlnet", "prediction_type": None, "variant": None}
ADAPTER = NET | {"type": "t2i_adapter"}
SETTINGS = {"begin": 0.1, "end": 0.8, "resize": "crop_resize"}


@pytest.fixture(scope="module", autouse=True)
def nodes() -> None:
    registry.discover()


async def graph_of(database: Database, **request: Any) -> dict[str, Any]:
    """Return the graph of a request; making a batch validates it: node types, fields, edges and their types."""
    batch = (await resolve_request(database, **request)).batch(origin="t")
    graph: dict[str, Any] = json.loads(next(iter(expand(batch, 100))).session)["graph"]
    return graph


def edges_of(graph: dict[str, Any]) -> set[tuple[str, ...]]:
    return {tuple(f"{end['node_id']}.{end['field']}" for end in edge.values()) for edge in graph["edges"]}


@pytest.mark.parametrize("base", ["sd-1", "sdxl"])
async def test_control_models_are_connected_to_the_denoise_node(database: Database, base: str) -> None:
    await add(database, "m", base=base)
    await add(database, "edges", base=base, **NET)
    await add(database, "depth", base=base, path="folder/My Depth", **NET)
    await add(database, "sketch", base=base, **ADAPTER)
    controls = [
        {"model": "EDGES", "image": "a.png", "weight": 0.5, "mode": "more_control", **SETTINGS},
        {"model": "my depth", "image": "b.png"},
        {"model": "sketch", "image": "c.png", "weight": 1.5, **SETTINGS},
    ]
    graph = await graph_of(database, controls=controls)
    first, second = (graph["nodes"][f"denoise_latents_controlnet_{number}"] for number in (0, 1))
    assert (first["control_model"]["key"], second["control_model"]["key"]) == ("edges", "depth")
    assert (first["control_weight"], first["control_mode"], first["resize_mode"]) == (
        0.5,
        "more_control",
        "crop_resize",
    )
    assert (first["begin_step_percent"], first["end_step_percent"], first["image"]["image_name"]) == (0.1, 0.8, "a.png")
    adapter = graph["nodes"]["denoise_latents_t2i_adapter_0"]
    assert (adapter["t2i_adapter_model"]["key"], adapter["weight"], adapter["resize_mode"]) == (
        "sketch", 1.5, "crop_resize",
    )  # fmt: skip
    assert {
        ("denoise_latents_controlnet_0.control", "denoise_latents_controlnet_collect.item"),
        ("denoise_latents_controlnet_1.control", "denoise_latents_controlnet_collect.item"),
        ("denoise_latents_controlnet_collect.collection", "denoise_latents.control"),
        ("denoise_latents_t2i_adapter_collect.collection", "denoise_latents.t2i_adapter"),
    } <= edges_of(graph)


async def test_control_models_are_recorded_in_the_metadata(database: Database) -> None:
    await add(database, "m")
    await add(database, "edges", **NET)
    await add(database, "sketch", **ADAPTER)
    metadata = (await graph_of(database))["nodes"]["core_metadata"]
    assert not metadata.get("controlnets")
    controls = [{"model": "edges", "image": "a.png", "weight": 0.5}, {"model": "sketch", "image": "b.png"}]
    metadata = (await graph_of(database, controls=controls))["nodes"]["core_metadata"]
    assert [(c["control_model"]["key"], c["control_weight"]) for c in metadata["controlnets"]] == [("edges", 0.5)]
    assert [(c["t2i_adapter_model"]["key"], c["weight"]) for c in metadata["t2iAdapters"]] == [("sketch", 1.0)]


async def test_hires_fix_uses_the_control_models_too(database: Database) -> None:
    await add(database, "m")
    await add(database, "edges", **NET)
    graph = await graph_of(
        database, controls=[{"model": "edges", "image": "a.png"}], hires_fix={"width": 1024, "height": 1024, "steps": 5}
    )
    assert ("second_denoise_controlnet_collect.collection", "second_denoise.control") in edges_of(graph)


async def test_unsupported_controls_are_refused(database: Database) -> None:
    await add(database, "m")
    await add(database, "other", base="sdxl", **NET)
    await add(database, "edges", **NET)
    await add(database, "sketch", **ADAPTER)

    async def resolve_control(**control: Any) -> None:
        await resolve_request(database, controls=[{"image": "a.png", **control}])

    with pytest.raises(generation.ExtraModelNotFound, match="nothing"):
        await resolve_control(model="nothing")
    with pytest.raises(generation.InvalidGeneration, match="other is for sdxl models, m is sd-1"):
        await resolve_control(model="other")
    with pytest.raises(generation.InvalidGeneration, match="begin must be less than end"):
        await resolve_control(model="edges", begin=0.5, end=0.5)
    wrong: dict[str, Any]
    for wrong in ({"weight": -0.5}, {"mode": "unbalanced"}):
        with pytest.raises(generation.InvalidGeneration, match="sketch is a T2I-Adapter"):
            await resolve_control(model="sketch", **wrong)
    for wrong in ({"weight": 2.5}, {"weight": float("nan")}, {"mode": "x"}, {"end": 1.1}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            await resolve_control(model="edges", **wrong)
