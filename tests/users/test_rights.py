"""Who may do what, over the whole application: every operation for its owner, another user, an admin and nobody."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import ROUTERS, create_app
from invokeclone.users import caller, current
from tests.users.rights import BOARDS, IMAGES, OPEN, RIGHTS, WORKFLOWS, Row
from tests.users.world import World, serve_world


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


def test_authentication_runs_before_a_connection_is_taken() -> None:
    """A request that held one connection and waited for another could wait for all the others that do the same."""
    count = 0
    for route in ROUTES:
        names = [dependency.call for dependency in route.dependant.dependencies]
        looking = [call for call in names if call in (current.media_user, caller.caller)]
        if not looking:
            continue
        count += 1
        before = names[: names.index(looking[0])]
        assert not [call for call in before if call and call.__name__ in ("_read", "_write")], name_of(route)
    assert count >= 3


@pytest.fixture
async def world(settings: Settings, laid_out: None) -> AsyncIterator[World]:
    async with serve_world(settings) as new_world:
        yield new_world


def test_the_table_has_every_operation() -> None:
    existing = {name_of(route) for route in ROUTES}
    assert existing - set(RIGHTS) - set(OPEN) == set(), "who may do this? say so in tests/users/rights.py"
    assert (set(RIGHTS) | set(OPEN)) - existing == set(), "no such operation any more"


def test_table_requests_match_their_routes() -> None:
    patterns = {name_of(route): (route.methods, route.path_regex) for route in ROUTES}
    for name, request in {**{name: row.request for name, row in RIGHTS.items()}, **OPEN}.items():
        method, path = request.split("?")[0].split(" ")
        methods, pattern = patterns[name]
        assert method in (methods or ()), name
        assert re.search(pattern.pattern.removeprefix("^"), path), (name, path)  # a router's own prefix may be missing


@pytest.mark.slow
async def test_access_matches_the_rights_table(world: World) -> None:
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


async def test_open_routes_need_no_token(world: World) -> None:
    for name, request in OPEN.items():
        row = Row(request)
        answer = await world.ask("nobody", row, await world.things(row))
        assert answer.status_code not in (401, 403), (name, answer.text)
    for path in ("/", "/health", "/docs", "/redoc"):
        assert (await world.clients["nobody"].get(path)).status_code == 200, path


async def test_concurrent_requests_do_not_deadlock_on_connections(world: World) -> None:
    """More requests than the database has connections: each needs one for its token and one for its work."""
    paths = [f"{BOARDS}/?all=true", f"{IMAGES}/", "/api/v2/models/", f"{WORKFLOWS}/tags"] * 15
    answers = await asyncio.gather(*(world.clients["owner"].get(path) for path in paths))  # a deadlock ends in a 500
    assert {answer.status_code for answer in answers} == {200}


async def test_allowed_origins_can_read_the_refreshed_token_header(settings: Settings) -> None:
    origin = "https://friend.example"
    app = create_app(settings.model_copy(update={"allow_origins": [origin]}), worker_command=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/health", headers={"Origin": origin})
    assert answer.headers["access-control-expose-headers"] == "X-Refreshed-Token"
