"""Recall over HTTP: what is stored, what is resolved, and which events the web UI gets."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service as images
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import now
from invokeclone.recall.api import router
from invokeclone.tables import models, users
from invokeclone.users import client_state
from invokeclone.users.current import User, current_user
from tests.applications import sample_image, serving
from tests.conftest import RecordedEvents

ADDRESS = "/api/v1/recall/default"


def record(key: str, name: str, model_type: str, base: str, **fields: Any) -> dict[str, Any]:
    """Return a row of the models table."""
    columns: dict[str, Any] = {
        "key": key,
        "hash": f"x:{key}",
        "base": base,
        "type": model_type,
        "name": name,
        "path": f"{key}/model",
    }
    columns |= {"format": fields.pop("format", "diffusers"), "source": name, "file_size": 1}
    config = {**columns, "source_type": "path", "repo_variant": "", **fields}
    return {**columns, "config": json.dumps(config)}


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with resources.database.write() as connection:
        for row in (
            record("main-1", "sd", "main", "sd-1", variant="normal", prediction_type="epsilon"),
            record("refiner-1", "fine", "main", "sdxl-refiner", variant="normal", prediction_type="epsilon"),
            record("vae-1", "v", "vae", "sd-1"),
            record("lora-1", "l", "lora", "sd-1", format="lycoris"),
            record("cn-1", "c", "controlnet", "sd-1"),
            record("ip-1", "i", "ip_adapter", "sd-1", format="checkpoint"),
        ):
            await connection.execute(insert(models).values(created_at=now(), updated_at=now(), **row))
    async with serving(resources, router) as lent:
        yield lent


@pytest.fixture
async def image(resources: Resources) -> ImageDTO:
    return await images.save(
        resources, sample_image(size=(48, 32)), category=ImageCategory.GENERAL, origin=ResourceOrigin.INTERNAL
    )


async def send_recall(client: httpx.AsyncClient, body: dict[str, Any], query: str = "") -> dict[str, Any]:
    answer = await client.post(f"{ADDRESS}{query}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def read_state(resources: Resources) -> dict[str, Any]:
    async with resources.database.read() as connection:
        keys = await client_state.keys(connection, "system", "recall_")
        return {key: json.loads(await client_state.get(connection, "system", key) or "") for key in keys}


async def test_plain_values_are_stored_and_emitted(
    client: httpx.AsyncClient, resources: Resources, events: RecordedEvents
) -> None:
    body = {"positive_prompt": "p é", "steps": 7, "width": 512, "height": 640, "seed": 3, "cfg_scale": 6.5}
    assert await send_recall(client, body) == {
        "status": "success",
        "queue_id": "default",
        "updated_count": 6,
        "parameters": body,
    }
    assert await read_state(resources) == {f"recall_{name}": value for name, value in body.items()}
    assert events.names() == ["recall_parameters_updated"]
    event = events.sent[0].model_dump(exclude={"timestamp"})
    assert event == {"queue_id": "default", "user_id": "system", "parameters": body}


async def test_empty_request_changes_nothing(
    client: httpx.AsyncClient, resources: Resources, events: RecordedEvents
) -> None:
    for body in ({}, {"steps": None}):
        assert await send_recall(client, body) == {"status": "no_parameters_provided", "updated_count": 0}
    assert await read_state(resources) == {}
    assert events.sent == []


async def test_model_names_become_keys_and_are_stored_as_sent(client: httpx.AsyncClient, resources: Resources) -> None:
    answer = await send_recall(client, {"model": "sd", "refiner_model": "fine", "vae_model": "v"})
    assert answer["parameters"] == {"model": "main-1", "refiner_model": "refiner-1", "vae_model": "vae-1"}
    assert (await read_state(resources))["recall_model"] == "sd"


async def test_missing_models_are_counted_and_omitted(client: httpx.AsyncClient) -> None:
    """`l` is a LoRA's name, `sd` no refiner's."""
    answer = await send_recall(client, {"model": "none", "vae_model": "l", "refiner_model": "sd"})
    assert (answer["updated_count"], answer["parameters"]) == (3, {})
    answer = await send_recall(client, {"loras": [{"model_name": "none"}]})
    assert (answer["updated_count"], answer["parameters"]) == (1, {"loras": []})


async def test_adapters_with_images(client: httpx.AsyncClient, image: ImageDTO) -> None:
    image_info = {"image_name": image.image_name, "width": 48, "height": 32}
    answer = await send_recall(
        client,
        {
            "loras": [{"model_name": "l", "weight": -2, "is_enabled": False}, {"model_name": "none"}],
            "control_layers": [
                {"model_name": "c", "image_name": image.image_name, "control_mode": "balanced"},
                {"model_name": "c", "image_name": "none.png", "end_step_percent": 0.5},
            ],
            "ip_adapters": [{"model_name": "i", "image_name": image.image_name, "method": "style"}],
            "reference_images": [{"image_name": image.image_name}, {"image_name": "none.png"}],
        },
    )
    assert answer["parameters"] == {
        "loras": [{"model_key": "lora-1", "weight": -2, "is_enabled": False}],
        "control_layers": [
            {"model_key": "cn-1", "image": image_info, "weight": 1, "control_mode": "balanced"},
            {"model_key": "cn-1", "weight": 1, "end_step_percent": 0.5},
        ],
        "ip_adapters": [{"model_key": "ip-1", "image": image_info, "weight": 1, "method": "style"}],
        "reference_images": [{"image": image_info}],
    }


async def test_strict_resets_absent_parameters(client: httpx.AsyncClient, resources: Resources) -> None:
    answer = await send_recall(client, {"steps": 7}, "?strict=true")
    assert answer["updated_count"] == 26
    parameters = answer["parameters"]
    assert parameters.pop("steps") == 7
    for name in ("loras", "control_layers", "ip_adapters", "reference_images"):
        assert parameters.pop(name) == []
    assert len(parameters) == 21
    assert set(parameters.values()) == {None}
    assert (await read_state(resources))["recall_model"] is None


async def test_append_flag_is_in_the_parameters(client: httpx.AsyncClient, image: ImageDTO) -> None:
    answer = await send_recall(client, {"reference_images": [{"image_name": image.image_name}]}, "?append=true")
    assert answer["parameters"]["append"] is True
    assert answer["updated_count"] == 1


async def test_strict_and_append_exclude_each_other(client: httpx.AsyncClient, resources: Resources) -> None:
    answer = await client.post(f"{ADDRESS}?strict=true&append=true", json={"steps": 1})
    assert answer.status_code == 400
    assert await read_state(resources) == {}


@pytest.mark.parametrize(
    "body",
    [
        {"nope": 1},
        {"steps": 0},
        {"width": 63},
        {"seed": -1},
        {"denoise_strength": 1.1},
        {"loras": [{"model_name": "l", "weight": 11}]},
        {"control_layers": [{"model_name": "c", "weight": 2.1}]},
        {"control_layers": [{"model_name": "c", "control_mode": "x"}]},
        {"ip_adapters": [{"model_name": "i", "method": "x"}]},
        {"reference_images": [{}]},
    ],
)
async def test_invalid_parameters_are_422(
    client: httpx.AsyncClient, resources: Resources, body: dict[str, Any]
) -> None:
    assert (await client.post(ADDRESS, json=body)).status_code == 422
    assert await read_state(resources) == {}


async def test_non_finite_number_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(ADDRESS, content=b'{"cfg_scale": NaN}', headers={"content-type": "application/json"})
    assert answer.status_code == 422


async def test_other_users_image_is_treated_as_missing(resources: Resources, image: ImageDTO) -> None:
    """Multi-user: neither its size nor that it exists is told."""
    async with resources.database.write() as connection:
        await connection.execute(
            insert(users).values(user_id="alice", email="a@x.y", created_at=now(), updated_at=now())
        )
    async with serving(resources, router) as client:
        transport: Any = client._transport
        transport.app.dependency_overrides[current_user] = lambda: User(user_id="alice")
        answer = await send_recall(client, {"reference_images": [{"image_name": image.image_name}], "steps": 3})
        assert answer["parameters"] == {"reference_images": [], "steps": 3}
    assert await read_state(resources) == {}, "it is kept for alice, not for system"
    async with resources.database.read() as connection:
        assert await client_state.get(connection, "alice", "recall_steps") == "3"


async def test_get_returns_a_note(client: httpx.AsyncClient) -> None:
    answer = (await client.get(ADDRESS)).json()
    assert (answer["status"], answer["queue_id"], set(answer)) == ("success", "default", {"status", "queue_id", "note"})
