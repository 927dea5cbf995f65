"""The main job from outside: InvokeAI's own batch in, events on the way, a picture that follows the prompt out."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.server_process import Server
from tests.whole.conftest import EventListener, decode_data_url

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(280)


async def run(server: Server, listener: EventListener, body: dict) -> dict:
    (item_id,) = await asyncio.to_thread(server.enqueue, body)
    await listener.until("queue_item_status_changed", item_id=item_id, status="completed")
    return await asyncio.to_thread(server.item, item_id)


async def test_prompt_generates_an_image_with_all_events_in_order(server: Server, listener: EventListener) -> None:
    item = await run(server, listener, server.batch("a red circle on a blue background", seed=7, steps=4))
    image = server.output_image(item)
    assert (image["width"], image["height"], image["image_origin"], image["is_intermediate"]) == (
        128,
        128,
        "internal",
        False,
    )
    full = server.client.get("/" + image["image_url"])
    assert full.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(full.content)) as picture:
        assert picture.size == (128, 128)
        assert {"invokeai_metadata", "invokeai_graph"} <= set(picture.info)
        corner = picture.convert("RGB").getpixel((4, 4))
    assert corner[2] > corner[0], "the background is blue"
    metadata = server.client.get(f"/api/v1/images/i/{image['image_name']}/metadata").json()
    assert metadata["positive_prompt"] == "a red circle on a blue background"
    assert (metadata["seed"], metadata["steps"]) == (7, 4)

    expected = [tuple(row) for row in json.loads((HERE / "event_order.json").read_text())]
    events = [
        (name, payload)
        for name, payload in listener.events
        if name.startswith(("invocation", "model_load", "queue_item"))
    ]
    actual = [
        (name, payload.get("invocation_source_id") or payload.get("status") or payload.get("submodel_type"))
        for name, payload in events
    ]
    assert actual == expected

    progress = [
        payload for name, payload in events if name == "invocation_progress" and payload["message"] == "Denoising"
    ]
    assert [payload["percentage"] for payload in progress] == [0.0, 0.25, 0.5, 0.75, 1.0]
    for payload in progress:
        assert (payload["image"]["width"], payload["image"]["height"]) == (128, 128)
        with Image.open(io.BytesIO(decode_data_url(payload["image"]["dataURL"]))) as preview:
            assert preview.size == (16, 16)


async def test_event_payloads_have_exactly_the_recorded_fields(server: Server, listener: EventListener) -> None:
    await run(server, listener, server.batch("a blue square on a red background", seed=8, steps=2))
    recorded = json.loads((HERE / "event_fields.json").read_text())
    names = set()
    for name, payload in listener.events:
        if name in recorded:
            names.add(name)
            assert sorted(payload) == recorded[name], name
    assert names == set(recorded)


async def test_equal_seeds_give_equal_images_and_other_seeds_differ(server: Server, listener: EventListener) -> None:
    pictures = []
    for seed, steps in ((11, 3), (12, 3), (11, 3)):
        body = server.batch("a green star", seed=seed, steps=steps)
        for node in body["batch"]["graph"]["nodes"].values():
            node["use_cache"] = False
        pictures.append(server.output_pixels(await run(server, listener, body)))
    assert pictures[0] == pictures[2]
    assert pictures[0] != pictures[1]


async def test_cached_run_repeats_only_the_last_node(server: Server, listener: EventListener) -> None:
    """l2i is sent with use_cache false: a second picture is saved, and nothing is computed again before it."""
    body = server.batch("a yellow heart", seed=3, steps=2)
    first = await run(server, listener, body)
    listener.events.clear()
    second = await run(server, listener, body)
    assert server.output_image(first)["image_name"] != server.output_image(second)["image_name"]
    assert server.output_pixels(first) == server.output_pixels(second)
    progressed = {payload["invocation_source_id"] for name, payload in listener.events if name == "invocation_progress"}
    assert progressed == {"canvas_output"}


async def test_cancel_stops_within_a_step_and_the_queue_continues(server: Server, listener: EventListener) -> None:
    (item_id,) = await asyncio.to_thread(server.enqueue, server.batch("a tree", seed=5, steps=1000))
    await listener.until("invocation_progress", item_id=item_id, message="Denoising")
    answer = await asyncio.to_thread(server.client.put, f"/api/v1/queue/default/i/{item_id}/cancel")
    assert answer.json()["status"] == "canceled"
    after = await run(server, listener, server.batch("a house", seed=6, steps=1))
    assert after["status"] == "completed"
    events = listener.of(item_id)
    denoising = [
        payload["percentage"]
        for name, payload in events
        if name == "invocation_progress" and payload["message"] == "Denoising"
    ]
    assert denoising[-1] < 0.9
    statuses = [payload["status"] for name, payload in events if name == "queue_item_status_changed"]
    assert statuses == ["in_progress", "canceled"]
    assert "invocation_error" not in [name for name, _ in events]
    assert server.item(item_id)["status"] == "canceled"


async def test_a_node_that_raises_fails_its_item_and_the_next_runs(server: Server, listener: EventListener) -> None:
    body = {"batch": {"graph": {"nodes": {"d": {"id": "d", "type": "div", "a": 1, "b": 0}}, "edges": []}, "runs": 1}}
    (item_id,) = await asyncio.to_thread(server.enqueue, body)
    error = await listener.until("invocation_error", item_id=item_id)
    assert error["error_type"] == "ZeroDivisionError"
    assert "Traceback" in error["error_traceback"]
    item = server.item(item_id)
    assert (item["status"], item["error_type"]) == ("failed", "ZeroDivisionError")
    assert list(item["session"]["errors"].values()) == [f"ZeroDivisionError: {item['error_message']}"]
    names = [(name, payload.get("status")) for name, payload in listener.of(item_id)]
    assert names[-2:] == [("queue_item_status_changed", "failed"), ("invocation_error", None)]
    assert (await run(server, listener, server.batch(steps=1)))["status"] == "completed"


async def test_image_to_image_preserves_the_image_according_to_strength(
    server: Server, listener: EventListener
) -> None:
    first = await run(server, listener, server.batch("a red circle on a blue background", seed=21, steps=10))
    name = server.output_image(first)["image_name"]
    body = server.batch("a red circle on a blue background", seed=22, steps=10, denoising_start=0.8)
    graph = body["batch"]["graph"]
    graph["nodes"]["i2l"] = {"type": "i2l", "id": "i2l", "image": {"image_name": name}, "fp32": True}
    graph["edges"] += [
        {"source": {"node_id": "sd1_model_loader", "field": "vae"}, "destination": {"node_id": "i2l", "field": "vae"}},
        {
            "source": {"node_id": "i2l", "field": "latents"},
            "destination": {"node_id": "denoise_latents", "field": "latents"},
        },
    ]
    changed = server.output_pixels(await run(server, listener, body))
    original = server.output_pixels(first)
    difference = sum(abs(a - b) for a, b in zip(original, changed, strict=True)) / len(original)
    assert 0 < difference < 20


def test_the_server_process_never_imports_torch(server: Server) -> None:
    import psutil

    assert server.process is not None
    maps = {entry.path for entry in psutil.Process(server.process.pid).memory_maps()}
    assert not any("libtorch" in path for path in maps)
    assert any("libtorch" in entry.path for entry in server.a_worker().memory_maps())
