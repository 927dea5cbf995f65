"""JSON bodies of every route: one rule for what cannot be stored, and null for what has a default."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, get_args, get_origin

import httpx
import pytest
from fastapi import APIRouter, Body, FastAPI
from pydantic import BaseModel

from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.graph.invocations.types import is_union
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.server.app import create_app
from invokeclone.server.http.bodies import JsonRoute, _filling
from tests.applications import serving

NODES = {BaseInvocation}
"""Their nulls are for the graph to read: tests/graph/test_validation.py."""

router = APIRouter()


class Inner(BaseModel):
    count: int = 3


class Thing(BaseModel):
    size: int = 2
    name: str | None = "x"
    inner: Inner = Inner()
    many: list[Inner] = []
    needed: int


@router.post("/embedded")
async def embed_thing(thing: Annotated[Thing, Body()], prepend: Annotated[bool, Body()] = False, word: Annotated[str | None, Body()] = "w") -> Any:  # fmt: skip
    return [thing, prepend, word]


@router.post("/single")
async def single(thing: Thing) -> Thing:
    return thing


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    resources.settings = resources.settings.model_copy(update={"limits": Limits(json_values=1000, text_kib=1)})
    async with serving(resources, router) as client:
        yield client


async def test_null_means_the_default(client: httpx.AsyncClient) -> None:
    nulls = {"size": None, "inner": {"count": None}, "many": [{"count": None}], "needed": 1}
    whole = {"size": 2, "name": "x", "inner": {"count": 3}, "many": [{"count": 3}], "needed": 1}
    answer = await client.post("/embedded", json={"thing": nulls, "prepend": None, "word": None})
    assert answer.json() == [whole, False, "w"]
    assert (await client.post("/single", json=nulls)).json() == whole


async def test_null_is_kept_for_nullable_fields_and_refused_for_required_ones(client: httpx.AsyncClient) -> None:
    assert (await client.post("/single", json={"name": None, "needed": 1})).json()["name"] is None
    assert (await client.post("/single", json={"needed": None})).status_code == 422
    assert (await client.post("/embedded", json={"thing": None})).status_code == 422
    assert (await client.post("/single", json=None)).status_code == 422


@pytest.mark.parametrize("text", [r'{"name": "\ud800", "needed": 1}', '{"needed": 1e999}', f'{{"needed": {2**64}}}', '{"needed": NaN}', r'{"\u0000": 1, "needed": 1}'])  # fmt: skip
async def test_unstorable_text_is_422_with_a_reason(client: httpx.AsyncClient, text: str) -> None:
    answer = await client.post("/single", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def test_limits_are_413_with_their_name(client: httpx.AsyncClient) -> None:
    for body in ({"many": [{}] * 1001, "needed": 1}, {"name": "x" * 1025, "needed": 1}):
        answer = await client.post("/single", json=body)
        assert (answer.status_code, "setting limits." in answer.text) == (413, True)
    assert (await client.post("/single", content="{", headers={"content-type": "application/json"})).status_code == 422


def routes(app: FastAPI) -> list[Any]:
    leaves: list[Any] = []
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        if (inside := getattr(route, "original_router", None)) is not None:
            waiting += inside.routes
        else:
            leaves.append(route)
    return leaves


def with_null(annotation: Any, within: frozenset[type] = frozenset()) -> Iterator[Any]:
    """Yield values of a type, each with one null for a field, however deep, that has a default and takes no null."""
    if is_union(annotation):
        for member in get_args(annotation):
            yield from with_null(member, within)
    elif get_origin(annotation) in (list, tuple, set):
        yield from ([value] for value in with_null(get_args(annotation)[0], within))
    elif get_origin(annotation) is dict:
        yield from ({"key": value} for value in with_null(get_args(annotation)[1], within))
    elif get_origin(annotation) is Annotated:
        yield from with_null(get_args(annotation)[0], within)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in within | NODES:
        for name, field in annotation.model_fields.items():
            if not field.is_required() and type(None) not in get_args(field.annotation) and field.annotation is not Any:
                yield {field.alias or name: None}
            for value in with_null(field.annotation, within | {annotation}):
                yield {field.alias or name: value}


def nulls(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (value is None) + sum(map(nulls, parts))


def test_null_means_the_default_on_public_and_hidden_routes(settings: Settings) -> None:
    checked, failures = 0, []
    for route in routes(create_app(settings, worker_command=None)):
        if not isinstance(route, JsonRoute):
            continue
        fill = _filling(route.dependant, embedded=route._embed_body_fields)
        for param in route.dependant.body_params:
            for value in with_null(param.field_info.annotation):
                whole = {param.alias: value} if route._embed_body_fields else value
                sent, checked = json.dumps(whole), checked + 1
                if nulls(fill(whole)):
                    failures.append(f"{route.path}: {sent}")
    assert failures == []
    assert checked > 40


def test_every_route_with_a_json_body_is_a_json_route(settings: Settings) -> None:
    api_routes = [route for route in routes(create_app(settings, worker_command=None)) if hasattr(route, "dependant")]
    with_body = [route for route in api_routes if getattr(route, "body_field", None) and route.include_in_schema]
    assert len(with_body) > 50
    assert [route.path for route in with_body if not isinstance(route, JsonRoute)] == []


async def test_nul_characters_in_addresses_and_queries(settings: Settings) -> None:
    app = create_app(settings, worker_command=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for address in ("/api/v1/images/i/a%00b", "/api/v1/images/?search_term=%00", "/sdapi/v1/a%00"):
            assert (await client.get(address)).status_code == 422 or address.startswith("/sdapi"), address
        assert (await client.get("/api/v1/health")).json() == (await client.get("/health")).json() == {"status": "ok"}
