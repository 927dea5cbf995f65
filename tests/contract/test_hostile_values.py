"""Hostile values in every place of every operation: never a 5xx, never an answer that is no JSON.

Values come from a fixed list, and go into one place of a body, query, path or form at a time, beside values that fit the schema. The short run
takes a few of them for each operation, the same each time; the slow one takes all.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app
from invokeclone.shims import routers as shims

Json = dict[str, Any]

HOSTILE: list[str] = [
    r'"\ud800"', r'"a\udfffb"', r'"\u0000"', str(2**63), str(2**64 - 1), str(2**64), str(10**30), str(-(2**63) - 1), "1e999", "NaN",
    "-Infinity", "null", "true", "-1", "0", "1.5", '""', '"x"', "[]", "[[]]", "[null]", "{}", '{"a":{"b":null}}', "[{}]", "[{},[]]",
    "[" * 60 + "]" * 60, '{"a":' * 99 + "1" + "}" * 99, "[" * 150 + "]" * 150, json.dumps("x" * 5000), json.dumps("\U0001f600\u202e"),
    json.dumps("../../etc/passwd"), json.dumps("%00"), json.dumps(["x"] * 1001), json.dumps(list(range(1001))),
]  # fmt: skip
PLAIN = [
    "\ufffd",
    "x" * 5000,
    "-1",
    str(2**63),
    str(10**30),
    "1e999",
    "nan",
    "null",
    "%",
    "..",
    "a\x01b",
    "\U0001f600",
    "",
    "[]",
    "{}",
]
WAITING_S = 1.0
"""How long a compatibility API may take until its request counts as accepted; there is no worker that would run it."""
LEFT_OUT = {("POST", "/api/v1/images/"): 501}  # as the contract says
NOT_CALLED = {"/api/v1/app/shutdown"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    root = tmp_path_factory.mktemp("hostile") / "root"
    root.mkdir()
    return create_app(Settings(root=root, log_handlers=[]), worker_command=None)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as opened,
    ):
        yield opened


def sample_value(schema: Json, schemas: Json, depth: int = 0) -> Any:
    """Return a small value that about fits a schema."""
    if "$ref" in schema:
        return sample_value(schemas[schema["$ref"].rpartition("/")[2]], schemas, depth + 1)
    if "default" in schema or "const" in schema or "enum" in schema:
        return schema.get("default", schema.get("const", schema.get("enum", [None])[0]))
    for group in ("anyOf", "oneOf", "allOf"):
        if group in schema:
            return sample_value(schema[group][0], schemas, depth + 1)
    match schema.get("type"):
        case "object" if depth < 8:
            required = schema.get("required", [])
            return {
                name: sample_value(part, schemas, depth + 1)
                for name, part in schema.get("properties", {}).items()
                if name in required
            }
        case "array":
            return [] if depth > 6 else [sample_value(schema.get("items", {}), schemas, depth + 1)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "string":
            return "3.0.0" if schema.get("title") == "Version" else "x"
        case _:
            return {}


def holes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from holes(part, (*path, key))


MARK = "@hole@"


def insert_mark(value: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return MARK
    if isinstance(value, list):
        return [insert_mark(part, path[1:]) if number == path[0] else part for number, part in enumerate(value)]
    return {**value, path[0]: insert_mark(value.get(path[0]), path[1:])}


def encode_with_text(value: Any, path: tuple[Any, ...], text: str) -> str:
    return json.dumps(insert_mark(value, path)).replace(f'"{MARK}"', text)


def properties(schema: Json, schemas: Json) -> list[str]:
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    return list(schema.get("properties", {}))


def calls(document: Json, rng: random.Random, limit: int) -> Iterator[tuple[str, str, Json]]:
    """Yield method, address and arguments of httpx for each call, at most `most` for an operation."""
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path in NOT_CALLED:
                continue
            variants = list(_calls(path, operation, schemas))
            for address, arguments in rng.sample(variants, min(limit, len(variants))):
                yield method.upper(), address, arguments


def _calls(path: str, operation: Json, schemas: Json) -> Iterator[tuple[str, Json]]:
    parameters = operation.get("parameters", [])
    names = {p["name"]: str(sample_value(p["schema"], schemas)) for p in parameters if p["in"] == "path"}
    query = {
        p["name"]: sample_value(p["schema"], schemas) for p in parameters if p["in"] == "query" and p.get("required")
    }
    address = path.format(**names) if names else path
    for parameter in parameters:
        for text in PLAIN:
            if parameter["in"] == "query":
                yield address, {"params": {**query, parameter["name"]: text}}
            elif parameter["in"] == "path" and text:
                from urllib.parse import quote

                yield path.format(**{**names, parameter["name"]: quote(text, safe="")}), {"params": query}
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        whole = sample_value(schema, schemas)
        if "json" in kind:
            optional = [(name,) for name in properties(schema, schemas)] if isinstance(whole, dict) else []
            for hole in dict.fromkeys([*holes(whole), *optional]):
                for text in HOSTILE:
                    body = encode_with_text(whole, hole, text)
                    yield address, {"params": query, "content": body, "headers": {"content-type": "application/json"}}
        else:
            for name in properties(schema, schemas):
                for text in [*HOSTILE, *PLAIN]:
                    form = {k: v for k, v in (whole if isinstance(whole, dict) else {}).items() if isinstance(v, str)}
                    files = {"file": ("\u202e..\\x.png", b"\x89PNG\r\n\x1a\n", "image/png")}
                    yield address, {"params": query, "data": {**form, name: text}, "files": files}


async def failures(client: httpx.AsyncClient, app: FastAPI, limit: int) -> list[str]:
    document = (await client.get("/openapi.json")).json()
    problems: dict[str, str] = {}
    called = 0
    for method, address, arguments in calls(document, random.Random(1), limit):
        called += 1
        try:
            answer = await client.request(method, address, **arguments)
        except (ValueError, httpx.InvalidURL) as error:
            problems[f"{method} {address[:80]}"] = f"raised {error!r} for {str(arguments)[:300]}"
            continue
        if answer.status_code >= 500 and LEFT_OUT.get((method, address)) != answer.status_code:
            problems[f"{method} {address[:80]} {answer.text[:120]}"] = (
                f"{answer.status_code} for {str(arguments)[:300]}"
            )
    assert called > 300
    return [f"{call}: {why}" for call, why in problems.items()]


async def compatibility_failures(client: httpx.AsyncClient, limit: int) -> list[str]:
    """Send hostile members to every address of the compatibility APIs that takes a body."""
    rng, problems = random.Random(2), []
    members = [
        "prompt",
        "n",
        "size",
        "seed",
        "steps",
        "width",
        "init_images",
        "contents",
        "model",
        "client_id",
        "alwayson_scripts",
        "batch_size",
    ]
    routes = [route for router in shims.ROUTERS for route in _routes(router)]
    for route in routes:
        for method in (route.methods or set()) & {"POST", "PUT", "DELETE"}:
            pairs = [(member, text) for member in members for text in HOSTILE]
            for member, text in rng.sample(pairs, min(limit, len(pairs))):
                address = route.path.replace("{", "").replace("}", "")
                body = f'{{"prompt": "x", "{member}": {text}}}' if member != "prompt" else f'{{"prompt": {text}}}'
                try:
                    async with asyncio.timeout(WAITING_S):
                        answer = await client.request(
                            method, address, content=body, headers={"content-type": "application/json"}
                        )
                except TimeoutError:
                    continue  # accepted: it waits for a worker, of which there is none
                if answer.status_code >= 500 and answer.status_code != 503:
                    problems.append(f"{method} {address} {answer.status_code} {answer.text[:200]} for {body[:200]}")
    assert len(routes) > 20
    return problems


def _routes(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif (inside := getattr(route, "original_router", None)) is not None:
            yield from _routes(inside)


async def test_a_few_hostile_values_for_each_operation(client: httpx.AsyncClient, app: FastAPI) -> None:
    problems = await failures(client, app, 4)
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_every_hostile_value_in_every_place(client: httpx.AsyncClient, app: FastAPI) -> None:
    problems = await failures(client, app, 10_000)
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_hostile_values_for_the_compatibility_apis(client: httpx.AsyncClient) -> None:
    problems = await compatibility_failures(client, 60)
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:50])
