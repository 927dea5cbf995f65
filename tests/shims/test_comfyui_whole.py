"""ComfyUI's dialect against a real server, in the order in which clients were seen to ask."""

import json
import struct
import uuid
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.server_process import Server
from tests.shims.comfyui import Comfy, frames_to_end, image_to_image, kinds, text_to_image
from tests.shims.conftest import circle_image, mean_color, object_color, png, read_image


@pytest.fixture
def comfy(http: httpx.Client) -> Comfy:
    return Comfy(http)


def pause_queue(http: httpx.Client) -> None:
    http.put("/api/v1/queue/default/processor/pause").raise_for_status()


def resume_queue(http: httpx.Client) -> None:
    http.put("/api/v1/queue/default/processor/resume").raise_for_status()


@pytest.mark.parametrize("prefix", ["", "/api", "/comfyui"])
def test_open_webui_request_sequence(http: httpx.Client, prefix: str) -> None:
    comfy = Comfy(http, prefix)
    checked = http.get(f"{prefix}/object_info", headers=comfy.headers)
    assert checked.headers["content-type"] == "application/json"
    assert "Embedded Tiny" in checked.json()["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    with comfy.listening() as socket:
        answer = comfy.post(text_to_image())
        prompt_id = answer.json()["prompt_id"]
        frames = frames_to_end(socket, prompt_id)
    first = frames[0]
    assert isinstance(first, dict)
    assert first["type"] == "status"
    assert first["data"]["sid"] == comfy.client_id
    assert "queue_remaining" in first["data"]["status"]["exec_info"]
    entry = comfy.history(prompt_id)[prompt_id]
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    assert entry["prompt"][:2] == [answer.json()["number"], prompt_id]
    assert entry["prompt"][2] == text_to_image()
    assert entry["prompt"][4] == ["9"]
    (image,) = entry["outputs"]["9"]["images"]
    assert image == {"filename": image["filename"], "subfolder": "", "type": "output"}
    picture = read_image(comfy.view(**image))
    assert picture.size == (128, 128)
    red, green, blue = object_color(picture)
    assert red > green + 60
    assert red > blue + 60


def test_frames_report_each_node_in_order(comfy: Comfy) -> None:
    with comfy.listening() as socket:
        prompt_id = comfy.enqueue(text_to_image(seed=2))
        frames = frames_to_end(socket, prompt_id)
    messages = [frame for frame in frames if isinstance(frame, dict) and frame["type"] != "status"]
    assert kinds(messages)[:3] == ["execution_start", "execution_cached", "executing"]
    assert kinds(messages)[-3:] == ["executed", "execution_success", "executing"]
    assert all(message["data"]["prompt_id"] == prompt_id for message in messages)
    nodes = [message["data"]["node"] for message in messages if message["type"] == "executing"]
    assert set(nodes) == {"3", "4", "6", "7", "8", "9", None}
    assert nodes.index("4") < nodes.index("6") < nodes.index("8") < nodes.index("9")
    assert nodes[-1] is None
    steps = [message["data"] for message in messages if message["type"] == "progress"]
    assert steps
    assert all(step["node"] == "3" and step["max"] == 20 for step in steps)
    assert steps[-1]["value"] == 20
    (executed,) = [message["data"] for message in messages if message["type"] == "executed"]
    assert executed["node"] == "9"
    assert executed["output"] == comfy.history(prompt_id)[prompt_id]["outputs"]["9"]
    assert [frame for frame in frames if isinstance(frame, bytes)] == [], "previews only for those who ask"


@pytest.mark.parametrize(("method", "are_sent"), [("latent2rgb", True), ("none", False), ("default", False)])
def test_previews_are_sent_to_clients_that_ask_for_them(comfy: Comfy, method: str, are_sent: bool) -> None:
    with comfy.listening() as socket:
        prompt_id = comfy.enqueue(text_to_image(seed=2, width=64), extra_data={"preview_method": method})
        previews = [frame for frame in frames_to_end(socket, prompt_id) if isinstance(frame, bytes)]
    assert bool(previews) is are_sent
    for preview in previews[:1]:
        assert struct.unpack(">II", preview[:8]) == (1, 1)
        assert read_image(preview[8:]).format == "JPEG"


def test_outputs_contain_every_image_of_a_batch(comfy: Comfy) -> None:
    entry = comfy.run(text_to_image(batch_size=3))
    pictures = comfy.pictures(entry)
    assert len({*pictures}) == 3
    alone = comfy.pictures(comfy.run(text_to_image(seed=3)))
    assert read_image(alone[0]).tobytes() == read_image(pictures[2]).tobytes(), "the third has the third seed"


def test_nulls_use_the_model_defaults(comfy: Comfy) -> None:
    workflow = text_to_image(width=None, height=None)
    workflow["3"]["inputs"]["steps"] = None
    workflow["7"]["inputs"]["text"] = None
    workflow["4"]["inputs"]["ckpt_name"] = None
    picture = read_image(comfy.pictures(comfy.run(workflow))[0])
    assert picture.size == (128, 128)


def test_an_edit_follows_upload_and_prompt(comfy: Comfy) -> None:
    name = comfy.upload(png(circle_image()), "/api/upload/image")
    same = read_image(comfy.pictures(comfy.run(image_to_image(name, "a red circle on a white background", 0.3)))[0])
    red, _, blue = object_color(same)
    assert red > blue + 60
    other = read_image(comfy.pictures(comfy.run(image_to_image(name, "a blue circle on a white background", 1.0)))[0])
    red, _, blue = object_color(other)
    assert blue > red + 40


def test_only_transparent_areas_change(comfy: Comfy, http: httpx.Client) -> None:
    original = comfy.upload(png(circle_image()))
    hole = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    hole.paste((0, 0, 0, 0), (0, 0, 64, 128))
    ref = json.dumps({"filename": original, "subfolder": "", "type": "input"})
    name = comfy.upload(png(hole), "/upload/mask", original_ref=ref)
    with_hole = read_image(comfy.view(filename=name, type="input"))
    assert with_hole.getchannel("A").getextrema() == (0, 255)
    workflow = image_to_image(f"{name} [input]", "a blue square on a green background")
    workflow["11"] = {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["5", 0], "mask": ["10", 1]}}
    workflow["3"]["inputs"]["latent_image"] = ["11", 0]
    picture = read_image(comfy.pictures(comfy.run(workflow))[0])
    unmasked = mean_color(picture, (72, 8, 120, 120))
    before = mean_color(circle_image(), (72, 8, 120, 120))
    assert max(abs(channel - other) for channel, other in zip(unmasked, before, strict=True)) < 25
    changed = mean_color(picture, (0, 0, 48, 128))
    assert max(abs(channel - other) for channel, other in zip(changed, (255, 255, 255), strict=True)) > 25


def test_preview_image_is_intermediate(comfy: Comfy, http: httpx.Client) -> None:
    workflow = text_to_image(seed=4)
    workflow["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    (image,) = comfy.run(workflow)["outputs"]["9"]["images"]
    assert image["type"] == "temp"
    assert http.get(f"/api/v1/images/i/{image['filename']}").json()["is_intermediate"] is True
    (output,) = comfy.run(text_to_image(seed=4))["outputs"]["9"]["images"]
    assert http.get(f"/api/v1/images/i/{output['filename']}").json()["is_intermediate"] is False
    metadata = http.get(f"/api/v1/images/i/{output['filename']}/metadata").json()
    assert metadata["positive_prompt"] == "a red circle on a white background"
    assert (metadata["seed"], metadata["steps"], metadata["width"]) == (4, 20, 128)


def test_images_are_served_in_the_requested_format(comfy: Comfy) -> None:
    image = Image.new("RGBA", (40, 30), (10, 200, 10, 128))
    name = comfy.upload(png(image))
    assert read_image(comfy.view(filename=name, type="input", preview="webp;80")).format == "WEBP"
    assert read_image(comfy.view(filename=name, type="input", preview="jpeg")).format == "JPEG"
    assert read_image(comfy.view(filename=name, type="input", channel="rgb")).mode == "RGB"
    assert read_image(comfy.view(filename=name, type="input", channel="a")).getpixel((0, 0)) == (0, 0, 0, 128)
    assert read_image(comfy.view(filename=name, type="input")).mode == "RGBA"


# Ends that are no success


def test_failed_prompt_sends_its_final_frames(comfy: Comfy, http: httpx.Client) -> None:
    query = {"image_category": "user", "is_intermediate": True}
    file = {"file": ("a.png", png(circle_image()), "image/png")}
    name = http.post("/api/v1/images/upload", params=query, files=file).json()["image_name"]
    pause_queue(http)
    try:
        with comfy.listening() as socket:
            prompt_id = comfy.enqueue(image_to_image(name))
            http.delete(f"/api/v1/images/i/{name}").raise_for_status()
            resume_queue(http)
            frames = frames_to_end(socket, prompt_id)
    finally:
        resume_queue(http)
    (error,) = [frame["data"] for frame in frames if isinstance(frame, dict) and frame["type"] == "execution_error"]
    assert error["node_id"] == "10"
    assert error["node_type"] == "LoadImage"
    assert error["exception_type"]
    assert isinstance(error["traceback"], list)
    entry = comfy.history(prompt_id)[prompt_id]
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["completed"] is False
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert entry["outputs"] == {}


def test_interrupted_prompt_sends_its_final_frames(comfy: Comfy, http: httpx.Client) -> None:
    workflow = text_to_image(seed=5)
    workflow["3"]["inputs"]["steps"] = 1000
    with comfy.listening() as socket:
        prompt_id = comfy.enqueue(workflow)
        while True:
            message = socket.recv(timeout=120)
            if isinstance(message, str) and json.loads(message)["type"] == "progress":
                break
        other = http.post("/interrupt", json={"prompt_id": str(uuid.uuid4())}, headers=comfy.headers)
        assert other.status_code == 200
        running = http.get("/queue").json()["queue_running"]
        assert [entry[1] for entry in running] == [prompt_id]
        assert http.post("/interrupt").status_code == 200
        frames = frames_to_end(socket, prompt_id)
    assert "execution_interrupted" in kinds(frames)
    entry = comfy.history(prompt_id)[prompt_id]
    assert entry["status"]["status_str"] == "error"


def test_pending_prompts_are_listed_deleted_and_closed(comfy: Comfy, http: httpx.Client) -> None:
    pause_queue(http)
    try:
        with comfy.listening() as socket:
            first, second, third = (comfy.enqueue(text_to_image(seed=seed)) for seed in (6, 7, 8))
            ahead = comfy.enqueue(text_to_image(seed=9), front=True)
            pending = http.get("/queue").json()["queue_pending"]
            assert {entry[1] for entry in pending} == {first, second, third, ahead}
            assert pending[0][2] == text_to_image(seed=6)
            assert pending[0][3]["client_id"] == comfy.client_id
            assert http.get("/prompt").json() == {"exec_info": {"queue_remaining": 4}}
            assert http.get(f"/history/{first}").json() == {}
            assert http.post("/queue", json={"delete": [second]}).status_code == 200
            frames_to_end(socket, second)
            assert http.post("/queue", json={"clear": True}).status_code == 200
            frames = frames_to_end(socket, first)
        assert "execution_interrupted" in kinds(frames)
        assert http.get("/queue").json() == {"queue_running": [], "queue_pending": []}
        assert comfy.history(second) == {}
    finally:
        resume_queue(http)


def test_prompt_canceled_in_the_web_ui_sends_its_final_frames(comfy: Comfy, http: httpx.Client) -> None:
    pause_queue(http)
    try:
        with comfy.listening() as socket:
            prompt_id = comfy.enqueue(text_to_image(seed=10))
            http.put("/api/v1/queue/default/cancel_by_batch_ids", json={"batch_ids": [prompt_id]}).raise_for_status()
            frames = frames_to_end(socket, prompt_id)
            cleared = comfy.enqueue(text_to_image(seed=11))
            http.put("/api/v1/queue/default/clear").raise_for_status()
            frames_to_end(socket, cleared)
    finally:
        resume_queue(http)
    assert "execution_interrupted" in kinds(frames)


def test_late_client_receives_the_final_frames(comfy: Comfy) -> None:
    with Comfy(comfy.http).listening():  # somebody else listens meanwhile
        prompt_id = comfy.enqueue(text_to_image(seed=12))
        while not comfy.history(prompt_id):
            pass
        with comfy.listening() as socket:
            frames = frames_to_end(socket, prompt_id)
    assert "execution_success" in kinds(frames)
    assert "executed" in kinds(frames)


def test_other_clients_receive_no_frames_of_a_prompt(comfy: Comfy) -> None:
    other = Comfy(comfy.http)
    with other.listening() as listener:
        comfy.run(text_to_image(seed=13))
        own_prompt_id = other.enqueue(text_to_image(seed=14))
        frames = frames_to_end(listener, own_prompt_id)
    prompt_ids = [frame["data"].get("prompt_id") for frame in frames if isinstance(frame, dict)]
    assert {prompt_id for prompt_id in prompt_ids if prompt_id is not None} == {own_prompt_id}


# Those that only poll


def test_silly_tavern_polls_the_history(http: httpx.Client) -> None:
    stats = http.get("/comfyui/system_stats").json()
    assert stats["system"]["comfyui_version"]
    answer = http.post("/comfyui/prompt", json={"prompt": text_to_image(seed=15)})
    prompt_id = answer.json()["prompt_id"]
    while prompt_id not in (history := http.get("/comfyui/history").json()):
        pass
    entry = history[prompt_id]
    assert entry["status"]["status_str"] == "success"
    (image,) = next(iter(entry["outputs"].values()))["images"]
    assert http.get("/comfyui/view", params=image).headers["content-type"] == "image/png"


def test_history_is_cut_and_cleared(comfy: Comfy, http: httpx.Client) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    with comfy.listening() as socket:
        for prompt_id in ids:
            assert comfy.enqueue(text_to_image(seed=16), prompt_id=prompt_id) == prompt_id
        for prompt_id in ids:
            frames_to_end(socket, prompt_id)
    assert comfy.post(text_to_image(), prompt_id=ids[0]).json()["error"]["type"] == "prompt_id_in_use"
    assert list(http.get("/history", params={"max_items": 2}).json()) == ids[1:]
    everything = list(http.get("/history").json())
    for offset in (0, 1):
        page = http.get("/history", params={"max_items": 1, "offset": offset}).json()
        assert list(page) == everything[offset : offset + 1], "an offset counts from the oldest"
    refused = comfy.post(text_to_image(), prompt_id="mine").json()["error"]
    assert refused["type"] == "invalid_prompt_id"
    assert http.get("/history", params={"max_items": "x"}).status_code == 400
    assert http.post("/history", json={"delete": [ids[0]]}).status_code == 200
    assert ids[0] not in http.get("/history").json()
    assert ids[1] in http.get("/history").json()
    assert http.post("/history", json={"clear": True}).status_code == 200
    assert http.get("/history").json() == {}


# Beside the rest of the server


def test_other_routes_are_unaffected(http: httpx.Client, server: Server) -> None:
    for path in ("/api/v1/app/version", "/api/v2/models/", "/api/v1/queue/default/status"):
        assert http.get(path).status_code == 200
    for path in ("/api/nothing", "/api/v1/nothing", "/comfyui/nothing", "/upload/nothing"):
        answer = http.get(path, headers={"accept": "text/html"})
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("application/json")
    socketio = http.get("/ws/socket.io/", params={"EIO": "4", "transport": "polling"})
    assert socketio.status_code == 200
    assert socketio.text.startswith("0{")


def test_model_and_node_lists(http: httpx.Client) -> None:
    assert http.get("/embeddings").json() == []
    assert http.get("/models/checkpoints").json() == ["Embedded Tiny"]
    assert http.get("/models/loras").json() == []
    assert set(http.get("/models").json()) >= {"checkpoints", "loras", "vae", "controlnet", "upscale_models"}
    assert http.get("/models/nothing").status_code == 404
    assert list(http.get("/object_info/KSampler").json()) == ["KSampler"]
    assert http.get("/object_info/Nothing").json() == {}
    assert http.post("/free", json={"unload_models": True}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda workflow: workflow["4"].update(class_type="NoSuchLoader"),
        lambda workflow: workflow["3"]["inputs"].update(latent_image=["8", 0]),
        lambda workflow: workflow["6"]["inputs"].update(clip=["3", 0]),
        lambda workflow: workflow["5"]["inputs"].update(width=100000, height=1),
        lambda workflow: workflow["5"]["inputs"].update(batch_size=1000),
        lambda workflow: workflow["3"]["inputs"].update(positive=["9", 0]),
        lambda workflow: workflow.pop("9"),
        lambda workflow: workflow.clear(),
        lambda workflow: workflow.update({str(number): workflow["9"] for number in range(100, 700)}),
    ],
)
def test_invalid_workflows_are_refused_and_enqueue_nothing(comfy: Comfy, enqueued: Any, change: Any) -> None:
    before = enqueued()
    workflow = text_to_image()
    change(workflow)
    answer = comfy.post(workflow)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error", "node_errors"}
    assert set(answer.json()["error"]) == {"type", "message", "details", "extra_info"}
    assert answer.json()["error"]["message"]
    assert enqueued() == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"prompt": []}', 400),
        (b'{"prompt": {"1": 2}}', 400),
        (b'{"prompt": {"1": {"class_type": "SaveImage", "inputs": 3}}}', 400),
        (b'{"prompt": {"1": {"class_type": ["SaveImage"]}}}', 400),
        (b'{"prompt": {}, "client_id": 7}', 400),
        (b'{"prompt": {}, "extra_data": 7}', 400),
        (b'{"prompt": {}, "extra_data": {"client_id": 7}}', 400),
        (b'{"prompt": {}, "extra_data": {"client_id": ["a"]}}', 400),
        (b'{"prompt": "' + b"x" * 10_000_000 + b'"}', 413),
    ],
)
def test_unreadable_bodies_are_refused(http: httpx.Client, enqueued: Any, body: bytes, status: int) -> None:
    before = enqueued()
    answer = http.post("/prompt", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert enqueued() == before


def test_invalid_uploads_are_refused(http: httpx.Client) -> None:
    assert http.post("/upload/image", data={"type": "input"}).status_code == 400
    assert http.post("/upload/image", files={"image": ("a.png", b"no picture", "image/png")}).status_code == 400
    file = {"image": ("a.png", png(circle_image()), "image/png")}
    assert http.post("/upload/mask", files=file).status_code == 400
    missing = {"original_ref": json.dumps({"filename": "missing.png"})}
    assert http.post("/upload/mask", files=file, data=missing).status_code == 404
    assert http.get("/view").status_code == 400
    assert http.get("/view", params={"filename": "../../etc/passwd"}).status_code == 403
    assert http.post("/queue", json={"delete": "all"}).status_code == 400


def test_items_of_other_clients_with_clashing_node_names_are_ignored(http: httpx.Client, comfy: Comfy) -> None:
    workflow = json.dumps({"prompt": {"9": {"class_type": "SaveImage"}}, "outputs": ["9"]})
    texts = {"comfy_workflow": "[]"}, {"comfy_workflow": workflow, "comfy_0_save0": "a"}
    for nodes in texts:
        graph = {"nodes": {name: {"id": name, "type": "string", "value": text} for name, text in nodes.items()}}
        batch = {"destination": "comfyui", "graph": graph}
        http.post("/api/v1/queue/default/enqueue_batch", json={"batch": batch}).raise_for_status()
    entry = comfy.run(text_to_image())
    assert entry["status"]["status_str"] == "success"
    assert http.get("/queue").status_code == 200
    history = http.get("/history")
    assert history.status_code == 200
    assert [entry["outputs"] for entry in history.json().values() if entry["prompt"][2].keys() == {"9"}] == [{}]
