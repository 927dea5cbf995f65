"""Who may do what, over the whole application: every operation for its owner, another user, an admin and nobody."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from PIL import Image

from invokeclone.kit.settings import Settings
from invokeclone.server import openapi
from invokeclone.server.app import ROUTERS, create_app
from invokeclone.users import caller, current
from tests.accounts import Account, account
from tests.images.videos.conftest import encoded
from tests.users.rights import BOARDS, IMAGES, OPEN, PRESET, PRESETS, PROMPTS, RIGHTS, VIDEOS, WORKFLOWS, Q, Row

PLACE = re.compile(r"\{([a-z ]+)\}")
WATCHED = {
    "image": f"{IMAGES}/i/",
    "video": f"{VIDEOS}/i/",
    "board": f"{BOARDS}/",
    "item": f"{Q}/i/",
    "workflow": f"{WORKFLOWS}/i/",
    "preset": f"{PRESETS}/i/",
    "prompt": f"{PROMPTS}/i/",
}
"""Where the owner sees a thing: after others have asked, it must be there as it was."""

USERS = {
    current.current_user,
    current.admin,
    current.media_user,
    current.account,
    current.signed_in,
    current.signed_in_admin,
    caller.caller,
}


def flat(routes: Any) -> Iterator[APIRoute]:
    """Yield the routes of routers within routers."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from flat(route.original_router.routes)
        elif isinstance(route, APIRoute):
            yield route


def calls(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls(dependency)


ROUTES = [route for router in ROUTERS for route in flat(router.routes) if route.include_in_schema]


def name_of(route: APIRoute) -> str:
    return route.operation_id or route.name


def test_every_route_asks_who_is_there_or_is_open() -> None:
    without = {name_of(route) for route in ROUTES if not USERS & set(calls(route.dependant))}
    assert without == set(OPEN)
    assert set(OPEN) <= openapi.OPEN_OPERATIONS


def test_what_looks_for_more_than_a_bearer_does_so_before_it_takes_a_connection() -> None:
    """A request that held one connection and waited for another could wait for all the others that do the same."""
    found = 0
    for route in ROUTES:
        names = [dependency.call for dependency in route.dependant.dependencies]
        looking = [call for call in names if call in (current.media_user, caller.caller)]
        if not looking:
            continue
        found += 1
        before = names[: names.index(looking[0])]
        assert not [call for call in before if call.__name__ in ("_read", "_write")], name_of(route)
    assert found >= 3


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    return buffer.getvalue()


FORM = {
    "name": "n", "author": "", "description": "", "version": "", "contact": "", "tags": "", "notes": "",
    "exposedFields": [], "meta": {"category": "user", "version": "3.0.0"}, "nodes": [], "edges": [], "form": None,
}  # fmt: skip


class World:
    """The whole application, four people, and things of the owner's."""

    def __init__(self, app: FastAPI, video: bytes) -> None:
        self.app, self._video, self._png = app, video, _png()
        self.clients: dict[str, httpx.AsyncClient] = {}
        self.accounts: dict[str, Account] = {}
        self._count = 0

    async def thing(self, kind: str) -> str:
        """Make a thing of the owner's and return what it is called."""
        self._count += 1
        match kind:
            case "user":
                return (await account(self.app.state.resources.database, f"user{self._count}")).user_id
            case "model":
                return str((await self._made("GET", "/api/v2/models/"))["models"][0]["key"])
            case "image":
                files = {"file": ("a.png", self._png, "image/png")}
                query = "?image_category=general&is_intermediate=false"
                return str((await self._made("POST", f"{IMAGES}/upload{query}", files=files))["image_name"])
            case "video":
                files = {"file": ("a.mp4", self._video, "video/mp4")}
                query = "?video_category=general&is_intermediate=false"
                return str((await self._made("POST", f"{VIDEOS}/upload{query}", files=files))["video_name"])
            case "board":
                return str((await self._made("POST", f"{BOARDS}/?board_name=b{self._count}"))["board_id"])
            case "item":
                graph = {"nodes": {"a": {"id": "a", "type": "add"}}}
                batch = {"batch": {"graph": graph, "runs": 1, "batch_id": "b", "destination": "d"}}
                made = await self._made("POST", f"{Q}/enqueue_batch", json=batch)
                await self._made("PUT", f"{Q}/i/{made['item_ids'][0]}/cancel")
                return str(made["item_ids"][0])
            case "workflow":
                return str((await self._made("POST", f"{WORKFLOWS}/", json={"workflow": FORM}))["workflow_id"])
            case "preset":
                return str((await self._made("POST", f"{PRESETS}/", data={"data": PRESET}))["id"])
            case "prompt":
                prompt = {"name": f"n{self._count}", "content": "c"}
                return str((await self._made("POST", f"{PROMPTS}/", json=prompt))["id"])
        raise AssertionError(f"the table names an unknown thing: {kind}")

    async def _made(self, method: str, path: str, **send: Any) -> Any:
        answer = await self.clients["owner"].request(method, path, **send)
        assert answer.is_success, (method, path, answer.text)
        return answer.json()

    async def things(self, row: Row) -> dict[str, str]:
        """Make all that a row's request names."""
        kinds = set(PLACE.findall(row.request + repr(row.send.get("json"))))
        return {kind: await self.thing(kind) for kind in kinds if not kind.startswith("form")}

    def filled(self, value: Any, things: dict[str, str]) -> Any:
        """Put the things where their places are."""
        match value:
            case dict():
                return {key: self.filled(item, things) for key, item in value.items()}
            case list():
                return [self.filled(item, things) for item in value]
            case tuple():
                return tuple(self.filled(item, things) for item in value)
            case b"<png>":
                return self._png
            case "{item}":
                return int(things["item"])
            case "{form}":
                return FORM
            case "{form with id}":
                return FORM | {"id": things["workflow"]}
            case str():
                return PLACE.sub(lambda found: things[found[1]], value) if "{" in value and '"' not in value else value
        return value

    async def ask(self, who: str, row: Row, things: dict[str, str]) -> httpx.Response:
        method, path = self.filled(row.request, things).split(" ")
        return await self.clients[who].request(method, path, **self.filled(row.send, things))

    async def seen(self, things: dict[str, str]) -> list[Any]:
        """Return how the owner sees the things."""
        paths = [f"{WATCHED[kind]}{name}" for kind, name in things.items() if kind in WATCHED]
        answers = [await self.clients["owner"].get(path) for path in paths]
        return [(answer.status_code, _steady(answer.json())) for answer in answers]


def _steady(body: Any) -> Any:
    """Leave out what is new in each answer."""
    return {key: value for key, value in body.items() if not key.endswith("_url") and key != "image"}


@pytest.fixture
async def world(settings: Settings, laid_out: None) -> AsyncIterator[World]:
    app = create_app(settings.model_copy(update={"multiuser": True}), worker_command=None)
    made = World(app, encoded((32, 32), 2))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        for who in ("owner", "other", "admin", "nobody"):
            headers = {}
            if who != "nobody":
                made.accounts[who] = await account(app.state.resources.database, who, is_admin=who == "admin")
                headers = made.accounts[who].headers
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
            made.clients[who] = await stack.enter_async_context(client)
        yield made


def test_the_table_has_every_operation() -> None:
    existing = {name_of(route) for route in ROUTES}
    assert existing - set(RIGHTS) - set(OPEN) == set(), "who may do this? say so in tests/users/rights.py"
    assert (set(RIGHTS) | set(OPEN)) - existing == set(), "no such operation any more"


def test_the_table_means_the_routes_it_names() -> None:
    patterns = {name_of(route): (route.methods, route.path_regex) for route in ROUTES}
    for name, request in {**{name: row.request for name, row in RIGHTS.items()}, **OPEN}.items():
        method, path = request.split("?")[0].split(" ")
        methods, pattern = patterns[name]
        assert method in methods, name
        assert re.search(pattern.pattern.removeprefix("^"), path), (name, path)  # a router's own prefix may be missing


@pytest.mark.slow
async def test_everybody_gets_what_the_table_says(world: World) -> None:
    wrong = []
    for name, row in RIGHTS.items():
        things = await world.things(row)
        before = await world.seen(things)
        for who, expected in (("nobody", 401), ("other", row.other), ("owner", row.owner), ("admin", row.admin)):
            if who == "owner" and await world.seen(things) != before:
                wrong.append(f"{name}: changed what is another's")
            if who == "admin":
                things = await world.things(row)
            answer = await world.ask(who, row, things)
            if answer.status_code not in (expected if isinstance(expected, tuple) else (expected,)):
                wrong.append(f"{name} as {who}: {answer.status_code}, not {expected}: {answer.text[:200]}")
    assert wrong == [], "\n".join(["", *wrong])


async def test_what_is_open_needs_no_token(world: World) -> None:
    for name, request in OPEN.items():
        row = Row(request)
        answer = await world.ask("nobody", row, await world.things(row))
        assert answer.status_code not in (401, 403), (name, answer.text)
    for path in ("/", "/health", "/docs", "/redoc"):
        assert (await world.clients["nobody"].get(path)).status_code == 200, path


async def test_many_requests_at_once_do_not_wait_for_each_other_s_connections(world: World) -> None:
    """More requests than the database has connections: each needs one for its token and one for its work."""
    paths = [f"{BOARDS}/?all=true", f"{IMAGES}/", "/api/v2/models/", f"{WORKFLOWS}/tags"] * 15
    answers = await asyncio.gather(*(world.clients["owner"].get(path) for path in paths))  # a deadlock ends in a 500
    assert {answer.status_code for answer in answers} == {200}


async def test_a_page_of_an_allowed_origin_may_read_the_token_that_follows(settings: Settings) -> None:
    origin = "https://friend.example"
    app = create_app(settings.model_copy(update={"allow_origins": [origin]}), worker_command=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/health", headers={"Origin": origin})
    assert answer.headers["access-control-expose-headers"] == "X-Refreshed-Token"
