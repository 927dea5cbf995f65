"""Every route of the route table against nobody, and against another user with the owner's ids: nothing is read, nothing changed."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import WebSocketRoute
from starlette.staticfiles import StaticFiles

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app
from invokeclone.server.http import authentication
from invokeclone.server.http.authentication import OPEN, RouteEntry
from tests.users.rights import COMPAT, RIGHTS, SECRET, Row
from tests.users.world import PLACEHOLDER, WATCHED, World, serve_world

IDS = {
    "image_name": "image",
    "video_name": "video",
    "board_id": "board",
    "item_id": "item",
    "workflow_id": "workflow",
    "style_preset_id": "preset",
    "system_prompt_id": "prompt",
    "bulk_download_item_name": "zip",
    "prompt_id": "comfy",
    "user_id": "user",
    "webhook_id": "webhook",
}
"""Parameters of paths that name somebody's thing, and which thing it is."""
OF_WORKERS = "/api/v1/workers/"
"""Routes below it that are not published need a worker's token, whoever signs in."""
NAMELESS = {
    "batch_id", "destination", "queue_id", "key", "name", "folder", "path", "model", "id", "date", "font_path", "pack_name",
    "provider_id", "deployment", "model_key", "token", "file",
}  # fmt: skip
"""Parameters that name nobody's thing, or what everybody shares."""
PARAMETER = re.compile(r"\{([a-z_]+)(?::path)?\}")


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[RouteEntry]:
    settings = Settings(root=tmp_path_factory.mktemp("root"), device="cpu", multiuser=True)
    return authentication.table(create_app(settings, worker_command=None))


@pytest.fixture
async def world(settings: Settings, laid_out: None) -> AsyncIterator[World]:
    async with serve_world(settings) as new_world:
        yield new_world


def rows(entries: list[RouteEntry]) -> Iterator[tuple[RouteEntry, Row | None]]:
    """Yield each route that is not open with its row: by operation, or by what any of its addresses does."""
    by_endpoint = {endpoint(entry): COMPAT[entry.key] for entry in entries if entry.key in COMPAT}
    for entry in entries:
        if entry.key not in OPEN and isinstance(entry.route, APIRoute) and not is_of_workers(entry):
            row = RIGHTS.get(entry.route.operation_id or entry.route.name) if entry.route.include_in_schema else None
            yield entry, row or by_endpoint.get(endpoint(entry))


def is_of_workers(entry: RouteEntry) -> bool:
    return isinstance(entry.route, APIRoute) and OF_WORKERS in entry.key and not entry.route.include_in_schema


async def test_files_of_workers_are_not_for_users(entries: list[RouteEntry], world: World) -> None:
    keys = [entry.key for entry in entries if is_of_workers(entry)]
    assert len(keys) == 4
    for key in keys:
        method, path = key.split(" ")
        for client in world.clients.values():
            response = await client.request(method, PARAMETER.sub("1", path), headers={"X-Worker-Id": "x"})
            assert response.status_code == 401, (key, response.text)


def calls(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls(dependency)


def endpoint(entry: RouteEntry) -> object:
    return getattr(entry.route, "endpoint", None)


def test_every_route_authenticates_or_is_listed_as_open(entries: list[RouteEntry]) -> None:
    """The list is compared with the route table: all routers, compatibility APIs, plain routes, sockets and mounts."""
    assert {entry.key for entry in entries if not entry.asks} == set(OPEN)
    assert len(entries) > 300
    assert {"MOUNT /ws", "WEBSOCKET /comfyui/ws", "GET /api/view", "GET /page/{name}"} <= {item.key for item in entries}


def test_every_route_has_a_row(entries: list[RouteEntry]) -> None:
    missing = [entry.key for entry, row in rows(entries) if row is None]
    assert missing == [], "who may do this? say so in tests/users/rights.py"
    assert set(COMPAT) <= {entry.key for entry in entries}
    assert all(entry.key in OPEN for entry in entries if isinstance(entry.route, WebSocketRoute))


def test_every_path_id_refers_to_an_owned_object_in_its_row(entries: list[RouteEntry]) -> None:
    for entry, row in rows(entries):
        assert row is not None
        parameters = set(PARAMETER.findall(entry.key))
        assert parameters <= set(IDS) | NAMELESS, f"{entry.key}: whose thing is this?"
        things = {IDS[parameter] for parameter in parameters if parameter in IDS}
        assert things <= set(PLACEHOLDER.findall(row.request)), entry.key


def test_get_routes_take_no_write_connection(entries: list[RouteEntry]) -> None:
    """A page of another site may have a browser send a GET (server/http/origins.py): so none takes a connection to write with."""
    for entry in entries:
        if entry.key.startswith("GET ") and isinstance(entry.route, APIRoute):
            assert "_write" not in {call.__name__ for call in calls(entry.route.dependant)}, entry.key


async def test_unauthenticated_route_still_requires_a_token(settings: Settings, laid_out: None) -> None:
    forgetful = APIRouter()

    @forgetful.get("/api/v1/forgetful")
    async def forget() -> str:
        return "anything"

    async with serve_world(settings) as world:
        world.app.include_router(forgetful)
        assert (await world.clients["nobody"].get("/api/v1/forgetful")).status_code == 401
        assert (await world.clients["other"].get("/api/v1/forgetful")).status_code == 200


def test_a_mount_that_is_not_listed_is_refused_at_start(settings: Settings) -> None:
    app = FastAPI(openapi_url=None)
    app.mount("/files", StaticFiles(directory=settings.root.parent))
    with pytest.raises(authentication.UnguardedRoute, match="MOUNT /files"):
        authentication.check(app)


async def test_every_closed_route_is_401_without_a_token(world: World, entries: list[RouteEntry]) -> None:
    wrong = []
    for entry in entries:
        method, path = entry.key.split(" ")
        if entry.key in OPEN:
            continue
        answer = await world.clients["nobody"].request(method, PARAMETER.sub("1", path))
        if answer.status_code != 401 or answer.headers["cache-control"] != "private, no-store":
            wrong.append(f"{entry.key}: {answer.status_code} {answer.headers}")
    assert wrong == [], "\n".join(["", *wrong])


async def test_other_users_cannot_read_or_change_owned_objects(world: World, entries: list[RouteEntry]) -> None:
    wrong = []
    await world.state()
    things = {kind: await world.thing(kind) for kind in set(IDS.values()) | {"model"}}
    before = {kind: await world.seen({kind: name}) for kind, name in things.items() if kind in WATCHED}
    requests: set[str] = set()
    for entry, row in rows(entries):
        assert row is not None
        if row.request + repr(row.send) in requests:
            continue
        requests.add(row.request + repr(row.send))
        answer = await world.ask("other", row, things)
        if answer.status_code != row.other:
            wrong.append(f"{entry.key}: {answer.status_code}, not {row.other}: {answer.text[:200]}")
        if SECRET in answer.text or world.accounts["owner"].email in answer.text:
            wrong.append(f"{entry.key}: tells what is the owner's: {answer.text[:500]}")
        if answer.headers.get("cache-control", "") != "private, no-store":
            wrong.append(f"{entry.key}: {answer.headers.get('cache-control')} lets a cache keep it")
        if answer.headers["x-content-type-options"] != "nosniff":
            wrong.append(f"{entry.key}: may be sniffed")
        named = {kind: things[kind] for kind in PLACEHOLDER.findall(row.request + repr(row.send)) if kind in before}
        if not entry.key.startswith("GET "):
            wrong += [
                f"{entry.key}: changed {kind}"
                for kind in named
                if await world.seen({kind: things[kind]}) != before[kind]
            ]
    wrong += [f"some route changed {kind}" for kind in before if await world.seen({kind: things[kind]}) != before[kind]]
    assert wrong == [], "\n".join(["", *wrong])
    assert len(requests) > 200
