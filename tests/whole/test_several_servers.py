"""Two servers on one PostgreSQL database, one storage and one Redis; only the second one has a worker."""

import asyncio
import contextlib
import io
import shutil
import subprocess
import zipfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import socketio

from tests.postgres import PostgresServer
from tests.redis_server import RedisServer
from tests.server_process import Server, free_port
from tests.shims.comfyui import Comfy, frames_to_end, kinds, text_to_image
from tests.whole.conftest import EventListener
from tests.whole.test_joined_workers import write_pack
from tests.whole.test_users import PASSWORD, UserClient

RED_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)


class Servers(NamedTuple):
    front: Server
    """Without workers."""
    back: Server
    """With one worker."""


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, redis_server: RedisServer
) -> Iterator[Servers]:
    """Start both at the same time on an empty database."""
    folder = tmp_path_factory.mktemp("several")
    environment = {
        "INVOKEAI_DATABASE_URL": postgres.new_database(migrated=False),
        "INVOKEAI_EVENTS_URL": redis_server.url,
        "INVOKEAI_STORAGE_URL": (folder / "images").as_uri(),
        "INVOKEAI_MULTIUSER": "true",
    }
    both = Servers(Server(folder / "front"), Server(folder / "back"))
    for server, devices in zip(both, ("[]", "[cpu]"), strict=True):
        write_pack(server.root)
        (server.root / "invokeai.yaml").write_text(f"schema_version: 4.0.3\ngeneration_devices: {devices}\n")
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda server: server.start(**environment), both))
        yield both
    finally:
        with ThreadPoolExecutor(2) as pool:
            for server in both:
                server.client.close()
            list(pool.map(Server.stop, both))


@pytest.fixture(scope="module")
def users(servers: Servers) -> Iterator[dict[str, UserClient]]:
    """Create accounts on one server and sign in on the other."""
    clients = {name: UserClient(servers.front, name) for name in ("admin", "alice", "bob")}
    body = {"email": clients["admin"].email, "password": PASSWORD}
    assert servers.back.client.post("/api/v1/auth/setup", json=body).status_code == 200
    admin = clients["admin"].sign_in()
    for name in ("alice", "bob"):
        body = {"email": clients[name].email, "password": PASSWORD}
        assert admin.http.post("/api/v1/auth/users", json=body).status_code == 201
        clients[name].sign_in()
    yield clients
    for client in clients.values():
        client.http.close()


@pytest.fixture
async def listening(servers: Servers, users: dict[str, UserClient]) -> AsyncIterator[dict[str, UserClient]]:
    """Connect every user to the server without workers."""
    for user in users.values():
        user.listener = EventListener()
        await user.listen(servers.front)
    yield users
    for user in users.values():
        await user.listener.client.disconnect()


def on(server: Server, user: UserClient) -> httpx.Client:
    """Return a client of `server` with the user's token, which another server issued."""
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {user.token}"}, timeout=60)


def number(seconds: float) -> dict[str, Any]:
    return {"nodes": {"a": {"id": "a", "type": "slow_number", "value": 7, "seconds": seconds}}}


def test_servers_that_start_at_once_on_an_empty_database_agree(
    servers: Servers, users: dict[str, UserClient], postgres: PostgresServer
) -> None:
    contents = []
    for server in servers:
        with on(server, users["admin"]) as client:
            workflows = client.get("/api/v1/workflows/", params={"categories": "default", "per_page": 1000}).json()[
                "items"
            ]
            presets = client.get("/api/v1/style_presets/").json()
            models = client.get("/api/v2/models/").json()["models"]
        for entries in (workflows, presets, models):
            assert entries
            assert len({entry["name"] for entry in entries}) == len(entries)
        contents.append((workflows, presets, models))
    assert contents[0] == contents[1]


async def test_events_of_one_server_reach_the_clients_of_the_other_once(
    servers: Servers, listening: dict[str, UserClient]
) -> None:
    alice, bob, admin = (listening[name] for name in ("alice", "bob", "admin"))
    with on(servers.back, alice) as client:
        body = {"batch": {"graph": number(0.1), "runs": 1}}
        enqueued = await asyncio.to_thread(client.post, "/api/v1/queue/default/enqueue_batch", json=body)
    (item_id,) = enqueued.json()["item_ids"]
    await bob.listener.until("queue_item_status_changed", item_id=item_id, status="completed", user_id="redacted")
    for user in (alice, admin):
        await user.listener.until("queue_item_status_changed", item_id=item_id, status="completed", user_id=alice.id)
        names = [name for name, _ in user.listener.of(item_id) if name != "invocation_progress"]
        statuses = ["queue_item_status_changed"] * 2
        assert names == [statuses[0], "invocation_started", "invocation_complete", statuses[1]], user.email
        assert [name for name, _ in user.listener.events].count("batch_enqueued") == 1
    assert [name for name, _ in bob.listener.of(item_id)] == ["queue_item_status_changed"] * 2
    await alice.listener.until("invocation_progress", item_id=item_id)
    assert alice.id not in str(bob.listener.events)


async def test_an_item_is_canceled_on_another_server_than_its_worker_is_on(
    servers: Servers, listening: dict[str, UserClient]
) -> None:
    alice = listening["alice"]
    slow = await asyncio.to_thread(alice.run, number(600))
    await alice.listener.until("invocation_started", item_id=slow)
    after = await asyncio.to_thread(alice.run, number(0))
    canceled = await asyncio.to_thread(alice.http.put, f"/api/v1/queue/default/i/{slow}/cancel")
    assert canceled.json()["status"] == "canceled"
    await alice.listener.until("queue_item_status_changed", item_id=after, status="completed")
    assert alice.item(slow)["status"] == "canceled"

    slow = await asyncio.to_thread(alice.run, number(600))
    await alice.listener.until("invocation_started", item_id=slow)
    after = await asyncio.to_thread(listening["bob"].run, number(0))
    await asyncio.to_thread(alice.http.put, "/api/v1/queue/default/clear")
    await listening["bob"].listener.until("queue_item_status_changed", item_id=after, status="completed")


def test_uploads_are_read_with_the_cookie_on_the_other_server(servers: Servers, users: dict[str, UserClient]) -> None:
    alice = users["alice"]
    upload = alice.http.post(
        "/api/v1/images/upload",
        params={"image_category": "user", "is_intermediate": False},
        files={"file": ("red.png", RED_PNG, "image/png")},
    )
    assert upload.status_code == 201, upload.text
    path = f"/api/v1/images/i/{upload.json()['image_name']}/full"
    cookie = {"Cookie": f"invokeai_media_token={alice.http.cookies['invokeai_media_token']}"}
    with httpx.Client(base_url=servers.back.url) as browser:
        assert browser.get(path).status_code == 401
        image = browser.get(path, headers=cookie)
    assert (image.status_code, image.headers["content-type"]) == (200, "image/png")


def test_a_compatibility_api_waits_for_the_worker_of_another_server(
    servers: Servers, users: dict[str, UserClient]
) -> None:
    body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
    response = users["alice"].http.post("/sdapi/v1/txt2img", json=body)
    assert response.status_code == 200, response.text
    assert len(response.json()["images"]) == 1


async def test_a_disabled_account_is_refused_on_every_server(
    servers: Servers, listening: dict[str, UserClient]
) -> None:
    bob = listening["bob"]
    with on(servers.back, listening["admin"]) as admin:
        closed = await asyncio.to_thread(admin.patch, f"/api/v1/auth/users/{bob.id}", json={"is_active": False})
    assert closed.status_code == 200
    assert bob.http.get("/api/v1/auth/me").status_code == 401
    async with asyncio.timeout(20):  # its accounts are checked every 30 s anyway
        while bob.listener.client.connected:
            await asyncio.sleep(0.02)
    bob.listener = EventListener()
    with pytest.raises(socketio.exceptions.ConnectionError):
        await bob.listen(servers.front)


NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    upstream invokeclone {{ server 127.0.0.1:{front}; server 127.0.0.1:{back}; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://invokeclone;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""


@pytest.fixture
def balancer(servers: Servers, tmp_path: Path) -> Iterator[str]:
    """Distribute requests evenly, each to the next server."""
    command = shutil.which("nginx")
    if command is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, front=servers.front.port, back=servers.back.port))
    process = subprocess.Popen([command, "-c", str(config), "-e", str(tmp_path / "error.log")])
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "error.log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{address}/health").status_code == 200
        return False

    servers.front.wait_for(answers, "nginx")
    yield address
    process.terminate()
    process.wait()


@pytest.mark.slow
async def test_a_client_of_a_load_balancer_needs_no_server_in_particular(
    balancer: str, servers: Servers, users: dict[str, UserClient]
) -> None:
    listener, alice = EventListener(), users["alice"]
    async with httpx.AsyncClient(base_url=balancer, timeout=60) as client:
        body = {"email": alice.email, "password": PASSWORD}
        token = (await client.post("/api/v1/auth/login", json=body)).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        auth = {"token": token}
        await listener.client.connect(balancer, auth=auth, transports=["websocket"])
        body = {"batch": {"graph": number(0), "runs": 1}}
        for _ in range(4):
            enqueued = await client.post("/api/v1/queue/default/enqueue_batch", json=body)
            (item_id,) = enqueued.json()["item_ids"]
            await listener.until("queue_item_status_changed", item_id=item_id, status="completed")
            assert (await client.get(f"/api/v1/queue/default/i/{item_id}")).json()["status"] == "completed"
    await listener.client.disconnect()


@pytest.fixture
def anyhow(balancer: str, users: dict[str, UserClient]) -> Iterator[httpx.Client]:
    """Return a client of the balancer as Alice: each request reaches the other server than the one before it."""
    headers = {"Authorization": f"Bearer {users['alice'].token}"}
    with httpx.Client(base_url=balancer, headers=headers, timeout=120) as client:
        yield client


@pytest.mark.slow
async def test_zip_files_through_a_load_balancer(anyhow: httpx.Client, listening: dict[str, UserClient]) -> None:
    params = {"image_category": "user", "is_intermediate": False}
    uploads = [
        anyhow.post("/api/v1/images/upload", params=params, files={"file": ("red.png", RED_PNG, "image/png")})
        for _ in range(2)
    ]
    names = {"image_names": [upload.json()["image_name"] for upload in uploads]}
    for _ in range(3):
        zip_name = anyhow.post("/api/v1/images/download", json=names).json()["bulk_download_item_name"]
        await listening["alice"].listener.until("bulk_download_complete", bulk_download_item_name=zip_name)
        file = anyhow.get(f"/api/v1/images/download/{zip_name}")
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            assert len(archive.namelist()) == 2
        for _ in range(2):
            assert anyhow.get(f"/api/v1/images/download/{zip_name}").status_code == 404


@pytest.mark.slow
def test_automatic1111_through_a_load_balancer(anyhow: httpx.Client, servers: Servers) -> None:
    body = {"prompt": "a red circle", "width": 128, "height": 128, "steps": 40, "n_iter": 8, "force_task_id": "mine"}
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):  # each server has the request once
            answer = pool.submit(anyhow.post, "/sdapi/v1/txt2img", json=body)
            previews: list[dict[str, Any]] = []

            def has_previews(previews: list[dict[str, Any]] = previews) -> bool:
                progress = anyhow.get("/sdapi/v1/progress").json()
                previews += [progress] if progress["current_image"] else []
                return len(previews) >= 4  # of both servers, in turn

            servers.front.wait_for(has_previews, "progress")
            assert {progress["current_task"] for progress in previews} == {"mine"}
            assert {progress["state"]["job_count"] for progress in previews} == {8}
            anyhow.post("/sdapi/v1/interrupt").raise_for_status()
            response = answer.result(60)
            assert response.status_code == 200, response.text
            assert len(response.json()["images"]) < 8
            assert anyhow.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


@pytest.mark.slow
def test_comfyui_through_a_load_balancer(anyhow: httpx.Client, users: dict[str, UserClient]) -> None:
    comfy = Comfy(anyhow, key=str(users["alice"].token))
    for number in range(3):
        with comfy.listening() as socket:
            prompt_id = comfy.enqueue(text_to_image(seed=number))
            frames = frames_to_end(socket, prompt_id)
        assert {"execution_start", "executing", "progress", "executed", "execution_success"} <= set(kinds(frames))
        entry = comfy.history(prompt_id)[prompt_id]
        assert len(comfy.pictures(entry)) == 1


@pytest.mark.slow
def test_a_wrong_or_unreachable_address_of_events_is_one_line(tmp_path: Path, postgres: PostgresServer) -> None:
    environment = {"INVOKEAI_DATABASE_URL": postgres.new_database(), "INVOKEAI_GENERATION_DEVICES": "[]"}
    server = Server(tmp_path / "root")
    with pytest.raises(AssertionError):  # it ends before it answers
        server.start(**environment, INVOKEAI_EVENTS_URL="localhost")
    assert server.process is not None
    assert server.process.wait(30) != 0
    first, *rest = server.log.read_text().splitlines()
    assert "events_url is not the address of a Redis or Valkey server" in first
    assert [line.partition(": ")[2] for line in rest] == ["Application startup failed. Exiting."]

    server.log.unlink()
    server.start(**environment, INVOKEAI_EVENTS_URL=f"redis://:hidden@127.0.0.1:{free_port()}")
    server.stop()
    lines = server.log.read_text().splitlines()
    assert len([line for line in lines if "clients get events of this server only" in line]) == 1
    assert not any("Traceback" in line or "hidden" in line for line in lines)
    server.client.close()
