"""ComfyUI's API used through the package comfy-api-simplified: every public method."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from comfy_api_simplified import ComfyApiError, ComfyApiWrapper, ComfyWorkflowWrapper
from PIL import Image

from tests.server_process import Server
from tests.shims.comfyui import image_to_image, text_to_image
from tests.shims.conftest import object_color, png, read_image


@pytest.fixture
def api(server: Server) -> ComfyApiWrapper:
    return ComfyApiWrapper(server.url)


@pytest.fixture
def paused(http: httpx.Client) -> Iterator[None]:
    http.put("/api/v1/queue/default/processor/pause").raise_for_status()
    yield
    http.put("/api/v1/queue/default/processor/resume").raise_for_status()


def titled(workflow: dict[str, Any]) -> ComfyWorkflowWrapper:
    """Return a workflow whose nodes have titles, as exported by ComfyUI."""
    return ComfyWorkflowWrapper(
        {node_id: node | {"_meta": {"title": node["class_type"]}} for node_id, node in workflow.items()}
    )


def test_images_of_a_workflow(api: ComfyApiWrapper, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(titled(text_to_image())))
    workflow = ComfyWorkflowWrapper(file)
    workflow.set_node_param("KSampler", "seed", 5)
    workflow.set_node_param("EmptyLatentImage", "batch_size", 2)
    results = api.queue_and_wait_images(workflow, "SaveImage")
    assert len(results) == 2
    for data in results.values():
        image = read_image(data)
        assert image.size == (128, 128), "the results, and no previews of running steps"
        red, _, blue = object_color(image)
        assert red > blue + 60


def test_images_over_the_websocket(api: ComfyApiWrapper) -> None:
    workflow = text_to_image(batch_size=3)
    workflow["9"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}}
    results = api.queue_and_wait_images(titled(workflow), "SaveImageWebsocket")
    assert [*results] == ["0", "1", "2"]
    assert {(read_image(data).format, read_image(data).size) for data in results.values()} == {("PNG", (128, 128))}
    assert len({*results.values()}) == 3


def test_images_of_a_prompt_that_ends_before_the_client_connects(
    api: ComfyApiWrapper, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_prompt = api.queue_prompt

    def queue_and_finish(*arguments: Any) -> dict[str, Any]:
        answer = queue_prompt(*arguments)
        while not http.get(f"/history/{answer['prompt_id']}").json():
            pass
        return answer

    monkeypatch.setattr(api, "queue_prompt", queue_and_finish)
    workflow = text_to_image(width=64, height=64)
    workflow["9"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}}
    (data,) = api.queue_and_wait_images(titled(workflow), "SaveImageWebsocket").values()
    assert read_image(data).size == (64, 64)


def test_upload_and_load_by_the_returned_name(api: ComfyApiWrapper, tmp_path: Path) -> None:
    file = tmp_path / "blue square.png"
    file.write_bytes(png(Image.new("RGB", (128, 128), "blue")))
    uploaded = api.upload_image(file)
    assert uploaded == {"name": "blue square.png", "subfolder": "default_upload_folder", "type": "input"}
    assert read_image(api.get_image("blue square.png", "default_upload_folder", "input")).getpixel((0, 0))[2] > 250
    workflow = image_to_image(f"{uploaded['subfolder']}/{uploaded['name']}", denoise=0.05)
    (data,) = api.queue_and_wait_images(titled(workflow), "SaveImage").values()
    red, _, blue = object_color(read_image(data))
    assert blue > red + 60
    with pytest.raises(ComfyApiError, match="404"):
        api.get_image("blue square.png", "", "input")


def test_queue_and_history(api: ComfyApiWrapper, paused: None) -> None:
    ids = [api.queue_prompt(titled(text_to_image(seed=seed)))["prompt_id"] for seed in (1, 2)]
    assert [entry[1] for entry in api.get_queue()["queue_pending"]] == ids
    assert [api.get_queue_size_before(prompt_id) for prompt_id in ids] == [1, 2]
    assert api.get_history(ids[0]) == {}
    with pytest.raises(ValueError, match="not in the queue"):
        api.get_queue_size_before("other")
    with pytest.raises(ComfyApiError, match="400"):
        api.queue_prompt({"1": {"class_type": "Unknown", "inputs": {}}})
    httpx.post(f"{api.url}/queue", json={"clear": True}).raise_for_status()


def test_interrupt_ends_the_wait(api: ComfyApiWrapper) -> None:
    workflow = titled(text_to_image())
    workflow.set_node_param("KSampler", "steps", 10_000)
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(api.queue_and_wait_images(workflow, "SaveImage"))
        except KeyError as error:  # there is no output
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not api.get_queue()["queue_running"]:
        pass
    api.interrupt()
    thread.join(60)
    assert str(results) == "[KeyError('9')]"


def test_descriptions(api: ComfyApiWrapper) -> None:
    info = api.get_object_info()
    assert "Embedded Tiny" in info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    assert api.get_object_info("KSampler") == {"KSampler": info["KSampler"]}
    assert info["KSampler"]["input"]["required"]["steps"] == [
        "INT",
        {"default": 20, "min": 1, "max": 10_000, "step": 1},
    ]
    assert info["KSampler"]["input"]["required"]["cfg"][1]["min"] == 0.0
    assert api.get_embeddings() == []
    stats = api.get_system_stats()
    assert stats["system"]["ram_total"] > 0
    assert {"name", "type", "index", "vram_total", "vram_free"} <= set(stats["devices"][0])
