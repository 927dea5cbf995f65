"""The routes by which joined workers transfer files: a worker's token, the claim of the item, and the limits."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import update
from starlette.testclient import TestClient

from invokeclone.graph.invocations import registry
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.models.records import store as models
from invokeclone.models.records.served_files import ServedModels
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.rows import ClaimedItem
from invokeclone.server.app import create_app
from invokeclone.server.http.guards import BodyLimit
from invokeclone.server.joined.protocol import PATH
from invokeclone.tables import session_queue
from invokeclone.users import worker_tokens
from invokeclone.worker.backend.api import router
from invokeclone.worker.backend.model_cache import MODEL_FILE, MODEL_FILES
from invokeclone.worker.backend.protocol import NodeImage
from invokeclone.worker.backend.transfers import IMAGES, pack
from tests.accounts import account
from tests.applications import serving
from tests.worker.test_context import config

GRAPH = {"nodes": {"a": {"id": "a", "type": "integer", "value": 1}}, "edges": []}
FIELDS = NodeImage(category=ImageCategory.GENERAL, node_id="n", is_intermediate=True)
WORKER = "joined:tests:cpu"


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    token = await worker_tokens.create(resources.database, "tests")
    async with serving(resources, router, parts={ServedModels: ServedModels(resources)}) as served:
        served.headers = httpx.Headers({"Authorization": f"Bearer {token}", "X-Worker-Id": WORKER})
        yield served


@pytest.fixture
async def item(resources: Resources) -> ClaimedItem:
    """Claim an item as the worker."""
    registry.discover()
    await service.enqueue(resources, "default", Batch.model_validate({"graph": GRAPH, "runs": 1}))
    claimed = await claims.claim(resources, "cpu", worker_id=WORKER)
    assert claimed
    return claimed


def images_of(item: ClaimedItem, **query: Any) -> str:
    return str(httpx.URL(IMAGES.format(item_id=item.item_id), params={"fence": item.fence, **query}))


async def test_an_image_is_stored_and_read(client: httpx.AsyncClient, item: ClaimedItem, resources: Resources) -> None:
    image = Image.linear_gradient("L")
    answer = await client.post(images_of(item), content=pack(image, FIELDS, 1))
    assert answer.status_code == 200, answer.text
    record = answer.json()
    assert (record["width"], record["session_id"], record["is_intermediate"]) == (256, item.session_id, True)
    answer = await client.get(images_of(item, name=record["image_name"]))
    with Image.open(io.BytesIO(answer.content)) as stored:
        assert stored.tobytes() == image.tobytes()
    answer = await client.get(images_of(item, name=record["image_name"], thumbnail=True))
    assert answer.content[8:12] == b"WEBP"
    assert (await client.get(images_of(item, name="no.png"))).status_code == 404
    (resources.settings.outputs_path / "images" / record["image_name"]).unlink()
    assert (await client.get(images_of(item, name=record["image_name"]))).status_code == 404


async def test_transfers_need_the_claim(client: httpx.AsyncClient, item: ClaimedItem, resources: Resources) -> None:
    body = pack(Image.new("L", (4, 4)), FIELDS, 1)
    name = (await client.post(images_of(item), content=body)).json()["image_name"]
    for headers, query in (({}, {"fence": item.fence + 1}), ({"X-Worker-Id": "another"}, {}), ({}, {"fence": 0})):
        assert (await client.post(images_of(item, **query), content=body, headers=headers)).status_code == 409
        assert (await client.get(images_of(item, **query, name=name), headers=headers)).status_code == 409
    async with resources.database.write() as connection:
        await connection.execute(update(session_queue).values(status="canceled"))
    assert (await client.post(images_of(item), content=pack(Image.new("L", (4, 4)), FIELDS, 1))).status_code == 409
    assert len(list(resources.settings.outputs_path.rglob("*.png"))) == 1


async def test_model_files_are_listed_and_sent_in_ranges(client: httpx.AsyncClient, resources: Resources) -> None:
    folder = resources.settings.models_path / "sd" / "m"
    folder.mkdir(parents=True)
    (folder / "a b.bin").write_bytes(bytes(range(200)))
    async with resources.database.write() as connection:
        await models.add(connection, config(key="m", path="sd/m"))
    (listed,) = (await client.get(MODEL_FILES, params={"key": "m"})).json()["files"]
    assert (listed["path"], listed["size"], listed["hash"][:7]) == ("a b.bin", 200, "blake3:")
    query = {"key": "m", "path": "a b.bin", "version": listed["version"]}
    assert (await client.get(MODEL_FILE, params=query)).content == bytes(range(200))
    answer = await client.get(MODEL_FILE, params=query, headers={"Range": "bytes=150-"})
    assert (answer.status_code, answer.content) == (206, bytes(range(150, 200)))
    assert (await client.get(MODEL_FILE, params=query, headers={"Range": "bytes=500-"})).status_code == 416
    assert (await client.get(MODEL_FILE, params=query | {"version": "0"})).status_code == 424
    for path in ("../m/a b.bin", "/etc/passwd", "", ".", "a%20b.bin"):
        assert (await client.get(MODEL_FILE, params=query | {"path": path})).status_code == 404
    assert (await client.get(MODEL_FILES, params={"key": "none"})).status_code == 404


@pytest.mark.parametrize("token", [None, "Bearer x", "Bearer icw_" + "a" * 43])
async def test_transfers_need_a_workers_token(client: httpx.AsyncClient, item: ClaimedItem, token: str | None) -> None:
    client.headers.pop("Authorization")
    headers = {"Authorization": token} if token else {}
    for address in (images_of(item, name="x.png"), f"{MODEL_FILES}?key=m", f"{MODEL_FILE}?key=m&path=x"):
        assert (await client.get(address, headers=headers)).status_code == 401
    assert (await client.post(images_of(item), content=b"x", headers=headers)).status_code == 401


async def test_invalid_requests_are_refused(client: httpx.AsyncClient, item: ClaimedItem) -> None:
    assert (await client.post(images_of(item), content=b"x")).status_code == 422
    assert (await client.post(images_of(item), content=b"")).status_code == 422
    for query in ({"fence": "x"}, {"fence": -1}, {"fence": 2**70}):
        assert (await client.post(images_of(item, **query), content=b"x")).status_code in (409, 422)
    address = IMAGES.format(item_id=2**70)
    assert (await client.get(f"{address}?fence=1&name=x")).status_code in (409, 422)
    headers = {"X-Worker-Id": "w" * 201}
    assert (await client.get(images_of(item, name="x.png"), headers=headers)).status_code == 422
    client.headers.pop("X-Worker-Id")
    assert (await client.get(images_of(item, name="x.png"))).status_code == 422


async def test_an_image_may_be_larger_than_a_json_body(resources: Resources) -> None:
    limits = resources.settings.limits.model_copy(update={"json_mib": 1, "upload_mib": 2})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(BodyLimit(app, limits))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        statuses = [
            (await client.post(path, content=b"x" * size)).status_code
            for path in (IMAGES.format(item_id=1), "/api/v1/workers/other")
            for size in (1_500_000, 2_500_000)
        ]
    assert statuses == [200, 413, 413, 413]


async def test_with_accounts_a_workers_token_is_enough_and_a_sign_in_is_not(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"multiuser": True}), worker_command=None)
    resources = app.services.get(Resources)
    token = await worker_tokens.create(resources.database, "tests")
    user = await account(resources.database, "ann")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        statuses = [
            (await client.get(f"{MODEL_FILES}?key=none", headers={"Authorization": f"Bearer {text}"})).status_code
            for text in (token, user.token)
        ]
    await resources.database.close()
    assert statuses == [404, 401]


def test_with_accounts_a_workers_token_is_enough_to_join(settings: Settings, laid_out: None) -> None:
    async def make_token() -> str:
        database = open_database(settings)
        text = await worker_tokens.create(database, "tests")
        await database.close()
        return text

    token = asyncio.run(make_token())
    app = create_app(settings.model_copy(update={"multiuser": True}), worker_command=None)
    reasons = []
    with TestClient(app, base_url="http://localhost") as client:
        for text in (token, f"{token[:-1]}?"):
            with client.websocket_connect(PATH, headers={"Authorization": f"Bearer {text}"}) as socket:
                socket.send_json({"kind": "join", "protocol": 0, "version": "0"})
                reasons.append(socket.receive_json()["reason"])
    assert "the worker runs invokeclone 0" in reasons[0]
    assert "The worker token is missing, wrong, expired or revoked" in reasons[1]
