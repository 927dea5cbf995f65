"""Every exception becomes `{"detail": …}` that is JSON, whatever it holds."""

import math
import sqlite3
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body
from pydantic import BaseModel, Field, field_validator
from sqlalchemy.exc import OperationalError

from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.errors import BadRequest, NotFound, Unauthorized
from invokeclone.kit.requests import Application
from invokeclone.server.http import errors, guards


class BoardNotFound(NotFound):
    pass


class Thing(BaseModel):
    size: int = Field(ge=1)
    name: str = "x"

    @field_validator("name")
    @classmethod
    def _not_bad(cls, value: str) -> str:
        if value == "bad":
            raise ValueError("a bad name")
        return value


RAISED: dict[str, Exception] = {
    "own": BoardNotFound("no board 7"),
    "empty": BadRequest(),
    "login": Unauthorized("who are you"),
    "huge": OverflowError("Python int too large to convert to SQLite INTEGER"),
    "bug": RuntimeError("secret"),
    "locked": OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked")),
    "broken": OperationalError("UPDATE", {}, sqlite3.OperationalError("disk I/O error")),
}


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = Application()
    errors.install(app)
    app.add_middleware(guards.BodyLimit, limits=Limits(image_json_mib=2))

    @app.get("/raise/{which}")
    async def raise_it(which: str) -> None:
        raise RAISED[which]

    @app.post("/things")
    async def make(thing: Annotated[Thing, Body()]) -> dict[str, Any]:
        return thing.model_dump()

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url="http://test")


@pytest.mark.parametrize(
    ("which", "status", "detail"),
    [
        ("own", 404, "no board 7"),
        ("empty", 400, "BadRequest"),
        ("login", 401, "who are you"),
        ("huge", 422, "a value cannot be stored: Python int too large to convert to SQLite INTEGER"),
        ("bug", 500, "RuntimeError: internal server error; see the server's log"),
        ("locked", 503, "the database is busy; try again"),
        ("broken", 500, "the database refused a statement; see the server's log"),
    ],
)
async def test_errors_map_to_status_and_detail(client: httpx.AsyncClient, which: str, status: int, detail: str) -> None:
    answer = await client.get(f"/raise/{which}")
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


async def test_headers_of_an_error(client: httpx.AsyncClient) -> None:
    assert (await client.get("/raise/login")).headers["www-authenticate"] == "Bearer"
    assert (await client.get("/raise/locked")).headers["retry-after"] == "1"


async def test_unknown_path_and_method(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/nope")).json() == {"detail": "Not Found"}
    answer = await client.delete("/things")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


async def test_validation_error_has_the_fastapi_format(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things", json={"size": 0, "name": "bad"})
    assert answer.status_code == 422
    first, second = answer.json()["detail"]
    assert first == {
        "type": "greater_than_equal",
        "loc": ["body", "size"],
        "msg": "Input should be greater than or equal to 1",
        "input": 0,
        "ctx": {"ge": 1},
    }
    assert second["ctx"] == {"error": "a bad name"}
    assert second["msg"] == "Value error, a bad name"


async def test_a_large_input_is_not_sent_back(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things", json={"size": ["x" * 1000] * 100})
    assert "input" not in answer.json()["detail"][0]
    assert len(answer.content) < 1000


async def test_input_that_json_cannot_hold(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for body in (b'{"size": NaN}', b'{"size": 1e999}', b'{"size": "\\ud800"}', b"{", b"[" * 100_000):
        answer = await client.post("/things", content=body, headers=headers)
        assert answer.status_code in (400, 422), body[:20]
        assert answer.json()["detail"]


def test_plain_converts_any_value_to_json() -> None:
    value = {1: math.nan, "b": b"\xff", "e": ValueError("x"), "s": {1}, "big": 2**70, "deep": [[["y"]]], "t": "\ud800"}
    assert errors.plain(value) == {
        "1": "nan",
        "b": "�",
        "e": "x",
        "s": [1],
        "big": str(2**70),
        "deep": [[["y"]]],
        "t": "?",
    }


def test_plain_terminates_on_cycles() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert errors.plain(loop)


async def test_body_with_a_large_content_length_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-length": str(2 * MIB + 1)}
    answer = await client.post("/things", content=b"{}", headers=headers)
    assert answer.status_code == 413


async def test_streamed_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(3):
            yield b" " * MIB

    answer = await client.post("/things", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("the request body is larger than")
