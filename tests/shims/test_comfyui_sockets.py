"""Who may listen on ComfyUI's socket, and what happens to prompts across restarts: servers of their own."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import socketio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from invokeclone.kit.errors import Forbidden
from invokeclone.shims.comfyui import sockets
from invokeclone.users.caller import KeyNeeded
from tests.server_process import Server
from tests.shims.comfyui import Comfy, frames_to_end, kinds, text_to_image
from tests.shims.conftest import circle_image, png

PASSWORD = "Right-Passw0rd"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "root")
    yield server
    server.client.close()
    if server.process is not None:
        server.stop()


def pause(server: Server) -> None:
    server.client.put("/api/v1/queue/default/processor/pause").raise_for_status()


def test_prompts_survive_a_restart_with_an_open_socket(running: Server) -> None:
    running.start()
    running.wait_for(lambda: running.client.get("/api/v2/models/").json()["models"], "the embedded model")
    comfy = Comfy(running.client)
    first_entry = comfy.run(text_to_image(seed=1))
    pause(running)
    with comfy.listening() as socket:
        waiting = comfy.enqueue(text_to_image(seed=2))
        running.stop()
        with pytest.raises(ConnectionClosed):
            while True:
                socket.recv(timeout=60)
    running.start(INVOKEAI_MAX_QUEUE_SIZE="1")
    with comfy.listening() as socket:  # nobody told the new process of the prompt: its row does
        frames = frames_to_end(socket, waiting)
    assert "execution_success" in kinds(frames)
    entry = comfy.history(waiting)[waiting]
    assert entry["prompt"][2] == text_to_image(seed=2)
    assert comfy.pictures(entry)
    assert comfy.history(first_entry["prompt"][1]) == {first_entry["prompt"][1]: first_entry}
    pause(running)
    interrupted = comfy.enqueue(text_to_image(seed=3))
    full = comfy.post(text_to_image(seed=4))
    assert full.status_code == 429
    assert "full" in full.json()["error"]["message"]
    running.client.delete("/api/v1/queue/default/i/" + str(running.client.get("/queue").json()["queue_pending"][0][0]))
    with comfy.listening() as socket:
        frames_to_end(socket, interrupted)


def test_multi_user_access(running: Server) -> None:
    running.start(INVOKEAI_MULTIUSER="true")
    running.client.post(
        "/api/v1/auth/setup", json={"email": "a@example.com", "display_name": "A", "password": PASSWORD}
    ).raise_for_status()
    signed = running.client.post("/api/v1/auth/login", json={"email": "a@example.com", "password": PASSWORD}).json()
    admin = {"Authorization": f"Bearer {signed['token']}"}
    running.client.post(
        "/api/v1/auth/users", json={"email": "b@example.com", "password": PASSWORD}, headers=admin
    ).raise_for_status()
    key = [sys.executable, "-m", "invokeclone", "user", "key", "add", "test", "--root", str(running.root)]
    keys = [
        subprocess.run([*key, "--email", email], capture_output=True, text=True, check=True).stdout.strip()
        for email in ("a@example.com", "b@example.com")
    ]
    with httpx.Client(base_url=running.url, timeout=60) as http:
        nobody, alice, bob = Comfy(http), Comfy(http, key=keys[0]), Comfy(http, key=keys[1])
        file = {"image": ("a.png", png(circle_image()), "image/png")}
        for method, path in (
            ("GET", "/object_info"),
            ("GET", "/object_info/KSampler"),
            ("GET", "/system_stats"),
            ("GET", "/prompt"),
            ("POST", "/prompt"),
            ("GET", "/queue"),
            ("POST", "/queue"),
            ("GET", "/history"),
            ("POST", "/history"),
            ("GET", f"/history/{uuid.uuid4()}"),
            ("GET", "/view?filename=a.png"),
            ("POST", "/upload/image"),
            ("POST", "/upload/mask"),
            ("POST", "/interrupt"),
            ("POST", "/free"),
            ("GET", "/embeddings"),
            ("GET", "/extensions"),
            ("GET", "/features"),
            ("GET", "/models"),
            ("GET", "/models/vae"),
            ("GET", "/users"),
            ("POST", "/settings"),
            ("GET", "/userdata?dir=x"),
        ):
            for prefix in ("", "/api", "/comfyui"):
                files = file if "upload" in path else None
                answer = http.request(method, f"{prefix}{path}", headers=nobody.headers, files=files)
                assert answer.status_code == 401, path
                assert answer.json()["error"]["type"] == "unauthorized"
        with pytest.raises(InvalidStatus) as refused, nobody.listening():
            pass
        assert refused.value.response.status_code == 401
        # Each has prompts and pictures of their own.
        running.client.put("/api/v1/queue/default/processor/pause", headers=admin).raise_for_status()
        with bob.listening() as socket:
            prompt_id = bob.enqueue(text_to_image())
            assert http.get("/queue", headers=alice.headers).json()["queue_pending"] == []
            for path in ("/queue", "/history"):
                body = {"clear": True, "delete": [prompt_id]}
                assert http.post(path, json=body, headers=alice.headers).status_code == 200
            assert len(http.get("/queue", headers=bob.headers).json()["queue_pending"]) == 1
            other = Comfy(http, key=keys[0])
            other.client_id = bob.client_id
            with other.listening() as eavesdropping:
                running.client.put("/api/v1/queue/default/processor/resume", headers=admin).raise_for_status()
                frames_to_end(socket, prompt_id)
                own_prompt_id = other.enqueue(text_to_image())
                frames = frames_to_end(eavesdropping, own_prompt_id)
        prompt_ids = {frame["data"].get("prompt_id") for frame in frames if isinstance(frame, dict)}
        assert prompt_ids <= {own_prompt_id, None}
        assert alice.history(prompt_id) == {}
        entry = bob.history(prompt_id)[prompt_id]
        assert len(bob.pictures(entry)) == 1
        name = alice.upload(png(circle_image()))
        assert http.get("/view", params={"filename": name, "type": "input"}, headers=bob.headers).status_code == 404
        (image,) = alice.history(own_prompt_id)[own_prompt_id]["outputs"]["9"]["images"]
        assert http.get("/view", params=image, headers=bob.headers).status_code == 403
        refusal = bob.post({**text_to_image(), "1": {"class_type": "LoadImage", "inputs": {"image": name}},
                            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})  # fmt: skip
        assert refusal.status_code == 400
        assert refusal.json()["node_errors"]["1"]["errors"][0]["type"] == "custom_validation_failed"
        assert http.post("/free", headers=bob.headers).status_code == 403
        assert http.post("/free", headers=alice.headers).status_code == 200


def test_cross_site_pages_cannot_connect(server: Server) -> None:
    address = server.url.replace("http", "ws", 1) + "/ws?clientId=x"
    with pytest.raises(InvalidStatus) as refused, connect(address, origin="http://evil.example", proxy=None):
        pass
    assert refused.value.response.status_code == 403
    with connect(address, origin=server.url, proxy=None) as socket:
        assert "status" in str(socket.recv(timeout=60))


async def test_socket_io_still_works(server: Server) -> None:
    async with socketio.AsyncSimpleClient(reconnection=False, request_timeout=60) as client:
        await client.connect(server.url, socketio_path="/ws/socket.io", transports=["websocket"], wait_timeout=60)
        await client.call("subscribe_queue", {"queue_id": "default"})
        with httpx.Client(base_url=server.url, timeout=60) as http:
            prompt_id = Comfy(http).enqueue(text_to_image(seed=77))
        received = []
        while not received or received[-1][1].get("status") != "completed":
            received.append(await client.receive(timeout=60))
    assert {event[1]["origin"] for event in received if "origin" in event[1]} == {"comfyui"}
    assert received[-1][1]["batch_id"] == prompt_id


def test_client_messages_on_the_socket_are_ignored(http: httpx.Client) -> None:
    comfy = Comfy(http)
    with comfy.listening() as socket:
        socket.send('{"type": "feature_flags", "data": {}}')
        socket.send(b"\x00\x01")
        socket.send("nonsense")
        frames_to_end(socket, comfy.enqueue(text_to_image(seed=78)))


class FakeConnection:
    """A connection that notes how it was closed."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.code = 0

    async def send_text(self, text: str) -> None:
        self.sent.append(text)

    async def close(self, code: int) -> None:
        self.code = code


async def check_until_closed(connection: FakeConnection, check_access: Callable[[], Awaitable[None]]) -> None:
    checks = sockets._access_checks(connection, check_access)  # type: ignore[arg-type]
    checks.start()
    async with asyncio.timeout(20):
        while not connection.code:
            await asyncio.sleep(0)
    await checks.stop()


async def test_client_that_loses_access_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "ACCESS_CHECK_INTERVAL_S", 0)
    checks = []

    async def still_may() -> None:
        checks.append(1)
        if len(checks) == 3:
            raise KeyNeeded

    connection = FakeConnection()
    await check_until_closed(connection, still_may)
    assert connection.code == 1008
    assert len(checks) >= 3


async def test_slow_client_misses_progress_frames_and_is_disconnected() -> None:
    socket = sockets.Socket()
    for number in range(100):
        socket.enqueue(f"step {number}", is_step=True)
    assert socket.frames.qsize() == sockets.BACKLOG_OF_STEPS
    for number in range(2 * sockets.BACKLOG):
        socket.enqueue_message("executed", {"node": number})
    assert socket.frames.qsize() == sockets.BACKLOG + 1
    connection = FakeConnection()
    await sockets._send_frames(connection, socket)  # type: ignore[arg-type]
    assert len(connection.sent) == sockets.BACKLOG
    assert connection.code == 1013


async def test_a_client_is_disconnected_if_a_frame_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_frame: object) -> bytes:
        raise RuntimeError("the database is away")

    monkeypatch.setattr(sockets.ImageFrame, "read", fail)
    socket, connection = sockets.Socket(), FakeConnection()
    socket.enqueue(sockets.ImageFrame(None, "a.png"))  # type: ignore[arg-type]
    await sockets._send_frames(connection, socket)  # type: ignore[arg-type]
    assert connection.code == 1011


async def test_failed_access_check_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception] = [OSError("the disk is away")]

    async def still_may() -> None:
        raise answers.pop() if answers else Forbidden("the key was revoked")

    monkeypatch.setattr(sockets, "ACCESS_CHECK_INTERVAL_S", 0)
    connection = FakeConnection()
    await check_until_closed(connection, still_may)
    assert connection.code == 1008
