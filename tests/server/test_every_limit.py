"""Each limit of docs/limits.md at its value, where it does not refuse, and one above, where a 4xx names the setting."""

import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.responses import Response

from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.server.app import create_app
from invokeclone.server.http.guards import VIDEO_FIELDS, BodyLimit
from invokeclone.shims.batch_follower import BatchFollower
from invokeclone.shims.comfyui.sockets import Clients, Socket, TooManySockets
from invokeclone.users.current import SYSTEM

Client = httpx.AsyncClient
Case = Callable[[Client, int], Awaitable[httpx.Response | list[httpx.Response]]]
TESTS = Path(__file__).parent.parent
QUEUE, UTILITIES = "/api/v1/queue/default", "/api/v1/utilities"
TESTS_IN_OTHER_FILES = {
    "session_nodes": "worker/test_outputs.py",
    "node_output_mib": "worker/test_outputs.py",
    "collection_items": "worker/test_outputs.py",
    "text_file_mib": "kit/test_user_files.py",
    "download_images": "images/test_downloads.py",
    "socket_message_kib": "server/test_sockets.py",
    "socket_rooms": "server/test_socket_limits.py",
    "sockets": "server/test_socket_limits.py",
}
BODIES = ("json_mib", "image_json_mib", "upload_mib", "video_mib")
"""Their bytes are counted before the application; `test_body_limits_count_bytes`."""
COMFYUI = "comfyui_sockets"


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


async def upload(client: Client, width: int, height: int, **form: str) -> httpx.Response:
    files = {"file": ("x.png", png(width, height), "image/png")}
    return await client.post("/api/v1/images/upload?image_category=user&is_intermediate=true", files=files, data=form)


def adders(number: int) -> dict[str, Any]:
    return {f"n{i}": {"id": f"n{i}", "type": "add"} for i in range(number)}


async def enqueue(client: Client, nodes: dict[str, Any], edges: Any = (), **batch: Any) -> httpx.Response:
    whole = {"graph": {"nodes": nodes, "edges": list(edges)}, **batch}
    return await client.post(f"{QUEUE}/enqueue_batch", json={"batch": whole})


def datum(node: str, *items: int) -> dict[str, Any]:
    return {"node_path": node, "field_name": "a", "items": list(items)}


async def edges(client: Client, number: int) -> httpx.Response:
    nodes = {f"i{i}": {"id": f"i{i}", "type": "integer"} for i in range(number)} | {"c": {"id": "c", "type": "collect"}}
    ends = [
        {"source": {"node_id": f"i{i}", "field": "value"}, "destination": {"node_id": "c", "field": "item"}}
        for i in range(number)
    ]
    return await enqueue(client, nodes, ends)


async def session_bytes(client: Client, number: int) -> httpx.Response:
    """Enqueue a session of 100 KiB as often as fits into a MiB, or once more."""
    text = {"t": {"id": "t", "type": "string", "value": "x" * 102_400}}
    return await enqueue(client, text, runs=10 if number == 1 else 11)


async def values(client: Client, number: int) -> httpx.Response:
    return await client.post("/api/v1/images/images_by_names", json={"image_names": ["x"] * (number - 1)})


async def depth(client: Client, number: int) -> httpx.Response:
    return await client.post(
        "/api/v1/images/images_by_names",
        content="[" * number + "]" * number,
        headers={"content-type": "application/json"},
    )


async def presets(client: Client, number: int) -> httpx.Response:
    form = {"data": json.dumps({"name": "n", "positive_prompt": "", "negative_prompt": "", "type": "user"})}
    responses = [await client.post("/api/v1/style_presets/", data=form) for _ in range(number)]
    for answer in responses:
        if answer.status_code == 200:
            await client.delete(f"/api/v1/style_presets/i/{answer.json()['id']}")
    return responses[-1]


async def webhooks(client: Client, number: int) -> httpx.Response:
    responses = [await client.post("/api/v1/webhooks/", json={"url": "https://example.com"}) for _ in range(number)]
    for answer in responses:
        if answer.status_code == 201:
            await client.delete(f"/api/v1/webhooks/{answer.json()['webhook_id']}")
    return responses[-1]


async def user_file(client: Client, number: int) -> httpx.Response:
    answer = await client.post("/userdata/x", content=b"x" * (MIB + number - 1))
    await client.delete("/userdata/x")
    return answer


async def user_files(client: Client, number: int) -> httpx.Response:
    responses = [await client.post(f"/userdata/{index}", content=b"x") for index in range(number)]
    for index in range(number):
        await client.delete(f"/userdata/{index}")
    return responses[-1]


async def import_presets(client: Client, number: int) -> httpx.Response:
    rows = json.dumps([{"name": "n", "positive_prompt": "a", "negative_prompt": "b"}] * number)
    return await client.post("/api/v1/style_presets/import", files={"file": ("x.json", rows, "application/json")})


async def prompts(client: Client, number: int) -> list[httpx.Response]:
    text = "x" * number
    return [
        await client.post(f"{QUEUE}/enqueue_prompt", json={"model": "none", "prompt": text}),
        await client.post(f"{QUEUE}/enqueue_prompt", json={"model": "none", "prompt": "x", "negative_prompt": {"chunks": [[{"text": text}]]}}),
        await client.post(f"{QUEUE}/enqueue_prompt", json={"model": "none", "prompt": "x", "second_pass": {"prompt": text}}),
        await client.post(f"{QUEUE}/enqueue_prompt", json={"model": "none", "prompt": "x", "second_pass": {"negative_prompt": {"chunks": [[{"text": text}]]}}}),
        await client.post(f"{UTILITIES}/dynamicprompts", json={"prompt": text}),
        await client.post(f"{UTILITIES}/expand-prompt", json={"prompt": text, "model_key": "none"}),
        await client.post(f"{UTILITIES}/image-to-prompt", json={"image_name": "none", "instruction": text, "model_key": "none"}),
        await client.post("/v1/images/generations", json={"model": "none", "prompt": "x", "negative_prompt": text}),
        await client.post("/sdapi/v1/txt2img", json={"override_settings": {"sd_model_checkpoint": "none"}, "prompt": text}),
        await client.post("/sdapi/v1/txt2img", json={"override_settings": {"sd_model_checkpoint": "none"}, "prompt": "x", "hr_prompt": text}),
        await client.post("/v1beta/models/none:predict", json={"instances": [{"prompt": text}]}),
        await client.post("/v1beta/models/none:generateContent", json={"contents": [{"parts": [{"text": text}]}]}),
    ]  # fmt: skip


async def images(client: Client, number: int) -> list[httpx.Response]:
    pixel = base64.b64encode(png(1, 1)).decode()
    generate = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"candidateCount": number}}
    return [
        await client.post("/v1/images/generations", json={"model": "none", "prompt": "x", "n": number}),
        await client.post("/sdapi/v1/txt2img", json={"override_settings": {"sd_model_checkpoint": "none"}, "prompt": "x", "batch_size": number}),
        await client.post("/sdapi/v1/extra-batch-images", json={"imageList": [{"data": pixel, "name": "x"}] * number, "upscaling_resize": 1}),
        await client.post("/v1beta/models/none:predict", json={"instances": [{"prompt": "x"}], "parameters": {"sampleCount": number}}),
        await client.post("/v1beta/models/none:generateContent", json=generate),
    ]  # fmt: skip


CASES: dict[str, tuple[int, Case]] = {
    "json_values": (20, values),
    "json_depth": (10, depth),
    "text_kib": (1, lambda client, n: client.post("/api/v1/images/images_by_names", json={"image_names": ["x" * (1024 + n - 1)]})),
    "names": (5, lambda client, n: client.post("/api/v1/images/images_by_names", json={"image_names": ["x"] * n})),
    "graph_nodes": (3, lambda client, n: enqueue(client, adders(n))),
    "graph_edges": (2, edges),
    "batch_fields": (2, lambda client, n: enqueue(client, adders(n), data=[[datum(f"n{i}", 1)] for i in range(n)])),
    "batch_values": (4, lambda client, n: enqueue(client, adders(1), data=[[datum("n0", *range(n))]])),
    "batch_mib": (1, session_bytes),
    "image_pixels": (100, lambda client, n: upload(client, n, 1)),
    "image_side": (100, lambda client, n: upload(client, n, 1)),
    "target_pixels": (100, lambda client, n: upload(client, 2, 2, resize_to=json.dumps({"width": n, "height": 1}))),
    "node_pixels": (100, lambda client, n: enqueue(client, {"b": {"id": "b", "type": "blank_image", "width": n, "height": 1}})),
    "prompt_characters": (20, prompts),
    "dynamic_prompts": (3, lambda client, n: client.post(f"{UTILITIES}/dynamicprompts", json={"prompt": "{a|b}", "max_prompts": n})),
    "request_images": (2, images),
    "image_file_mib": (1, lambda client, n: client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(b"x" * (MIB + n - 1)).decode()})),
    "plain_json_kib": (1, lambda client, n: client.post("/sdapi/v1/options", content=b"{}" + b" " * (1022 + n - 1))),
    "comfyui_nodes": (3, lambda client, n: client.post("/prompt", json={"prompt": {str(i): {"class_type": "Note"} for i in range(n)}})),
    "comfyui_file_mib": (1, user_file),
    "comfyui_files": (2, user_files),
    "page_items": (5, lambda client, n: client.get("/api/v1/boards/", params={"offset": 0, "limit": n})),
    "presets": (2, presets),
    "webhooks": (2, webhooks),
    "import_rows": (3, import_presets),
}  # fmt: skip


async def answers_of(case: Case, client: Client, number: int) -> list[httpx.Response]:
    """Return the answers of all routes that a case asks."""
    answers = await case(client, number)
    return answers if isinstance(answers, list) else [answers]


def described(answer: httpx.Response) -> tuple[str, int, str]:
    return answer.request.url.path, answer.status_code, answer.text[:200]


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings, worker_command=None)
    async with app.router.lifespan_context(app):
        yield app


def test_every_limit_has_a_case() -> None:
    assert {*CASES, *TESTS_IN_OTHER_FILES, *BODIES, COMFYUI} == set(Limits.model_fields)
    for name, file in TESTS_IN_OTHER_FILES.items():
        assert name in (TESTS / file).read_text(), f"{file} does not test limits.{name}"


async def test_values_at_each_limit_pass_and_one_above_is_refused(app: FastAPI) -> None:
    resources: Resources = app.services.get(Resources)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    wrong = []
    async with Client(transport=transport, base_url="http://test", timeout=60) as client:
        for name, (value, case) in CASES.items():
            resources.settings = resources.settings.model_copy(update={"limits": Limits(**{name: value})})
            at, above = await answers_of(case, client, value), await answers_of(case, client, value + 1)
            wrong += [
                ("at the limit", *described(answer))
                for answer in at
                if f"limits.{name}" in answer.text or answer.status_code >= 500
            ]
            wrong += [
                ("above the limit", *described(answer))
                for answer in above
                if not (400 <= answer.status_code < 500 and f"limits.{name}" in answer.text)
            ]
    assert wrong == []


async def test_workflow_page_size_has_a_limit(app: FastAPI) -> None:
    app.services.get(Resources).settings = app.services.get(Resources).settings.model_copy(
        update={"limits": Limits(page_items=5)}
    )
    async with Client(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/api/v1/workflows/?per_page=5")).status_code == 200
        answer = await client.get("/api/v1/workflows/?per_page=6")
    assert (answer.status_code, "limits.page_items" in answer.text) == (422, True)


@pytest.mark.parametrize("declared", [True, False])
async def test_body_limits_count_bytes(declared: bool) -> None:
    read = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
        read.append(scope["path"])
        await Response()(scope, receive, send)

    app = BodyLimit(inside, Limits(**dict.fromkeys(BODIES, 1)))
    kinds = {
        "json_mib": ("/api/v1/queue/", "application/json", MIB),
        "image_json_mib": ("/sdapi/v1/img2img", "application/json", MIB),
        "upload_mib": ("/api/v1/images/upload", "multipart/form-data; boundary=x", MIB),
        "video_mib": ("/api/v1/videos/upload", "multipart/form-data; boundary=x", MIB + VIDEO_FIELDS),
    }

    async def parts(size: int) -> AsyncIterator[bytes]:
        yield b"x" * size

    async with Client(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for name, (path, kind, size) in kinds.items():
            for bytes_sent in (size, size + 1):
                content: Any = b"x" * bytes_sent if declared else parts(bytes_sent)
                answer = await client.post(path, content=content, headers={"content-type": kind})
                assert answer.status_code == (200 if bytes_sent == size else 413), name
            assert f"limits.{name}" in answer.text
    assert len(read) == len(kinds)


async def test_comfyui_sockets_are_limited_per_user(resources: Resources) -> None:
    resources.settings = resources.settings.model_copy(update={"limits": Limits(comfyui_sockets=2)})
    clients = Clients(resources, BatchFollower(resources, Bus()), Bus())
    clients._sockets["somebody else", "c"] = {Socket(), Socket(), Socket()}
    clients._sockets[SYSTEM.user_id, "a"] = {Socket()}

    class Accepted(Exception):
        pass

    class Connection:
        async def accept(self) -> None:
            raise Accepted

    async def stay() -> None:
        return None

    with pytest.raises(Accepted):
        await clients.serve(Connection(), SYSTEM, "b", stay)  # type: ignore[arg-type]
    clients._sockets[SYSTEM.user_id, "b"] = {Socket()}
    with pytest.raises(TooManySockets, match=r"limits\.comfyui_sockets"):
        await clients.serve(Connection(), SYSTEM, "b", stay)  # type: ignore[arg-type]
