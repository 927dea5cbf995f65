"""The index of routes gives every request the route that FastAPI's own search gives it."""

import pytest
from fastapi import APIRouter, FastAPI
from starlette.testclient import TestClient

from invokeclone.server.http.routing import RouteIndex


def _router() -> APIRouter:
    router = APIRouter(prefix="/things")
    nested = APIRouter(prefix="/nested")

    @router.get("/")
    async def everything() -> str:
        return "everything"

    @router.get("/first")
    async def first() -> str:
        return "first"

    @router.get("/{name}")
    async def one(name: str) -> str:
        return f"one {name}"

    @router.get("/second")
    async def second() -> str:
        return "second, which the one before it hides"

    @router.get("/{name}/file.{kind}")
    async def file(name: str, kind: str) -> str:
        return f"file {name} {kind}"

    @router.post("/first")
    async def change() -> str:
        return "changed"

    @nested.get("/{rest:path}")
    async def rest(rest: str) -> str:
        return f"rest {rest}"

    router.include_router(nested)
    return router


@pytest.fixture
def clients() -> tuple[TestClient, TestClient]:
    indexed, plain = FastAPI(), FastAPI()
    RouteIndex(indexed).include(_router())
    plain.include_router(_router())
    for app in (indexed, plain):
        app.add_api_route("/health", lambda: "well")
    return TestClient(indexed), TestClient(plain)


ADDRESSES = (
    *("/things/", "/things", "/things/first", "/things/second", "/things/x", "/things/first/", "/things/a/file.png"),
    *(
        "/things/nested/a/b",
        "/things/nested/",
        "/health",
        "/",
        "/elsewhere",
        "/things/a/b",
        "//things/first",
        "/things/{name}",
    ),
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_index_selects_the_same_route_as_the_search(
    clients: tuple[TestClient, TestClient], method: str, address: str
) -> None:
    answers = [client.request(method, f"http://testserver{address}", follow_redirects=False) for client in clients]
    routed, plain = [(response.status_code, response.text, response.headers.get("location")) for response in answers]
    assert routed == plain


def test_indexed_routes_are_found_without_a_search(clients: tuple[TestClient, TestClient]) -> None:
    app = clients[0].app
    assert isinstance(app, FastAPI)
    index = app.router.middleware_stack
    assert isinstance(index, RouteIndex)

    async def search(*_: object) -> None:
        raise AssertionError("searched")

    index._search = search  # type: ignore[assignment]
    assert clients[0].get("/things/first").text == '"first"'
