"""Compressed request bodies: whole and in pieces, over the limit, broken, and in other encodings."""

import bz2
import gzip
import random
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.errors import BadRequest
from invokeclone.server.http.compression import SLICE_BYTES, CompressedBodies
from invokeclone.server.http.guards import BodyLimit

PATHS = {
    "/api/v1/queue/default/enqueue_batch": lambda body: set(body) == {"detail"},
    "/v1/images/generations": lambda body: body["error"]["type"] == "invalid_request_error",
    "/v1beta/models/a:predict": lambda body: body["error"]["status"] == "INVALID_ARGUMENT",
    "/sdapi/v1/txt2img": lambda body: body["error"] == "HTTPException",
    "/prompt": lambda body: body["error"]["type"],
}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Return the body."""
    assert Request(scope).headers.get("content-encoding", "identity") == "identity"
    await Response(await Request(scope, receive).body())(scope, receive, send)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    limits = Limits(json_mib=2, image_json_mib=2)
    app = CompressedBodies(BodyLimit(echo, limits))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


PLAIN = {
    "empty": b"",
    "short": b'{"a": 1}',
    "long": b"0123456789" * 150_000,
    "exactly a slice": b"x" * SLICE_BYTES,
    "two slices": b"x" * (2 * SLICE_BYTES),
    "random": random.Random(1).randbytes(700_000),
}


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "GZIP"])
@pytest.mark.parametrize("what", PLAIN)
async def test_compressed_bodies_are_read(client: httpx.AsyncClient, encoding: str, what: str) -> None:
    data = PLAIN[what]
    packed = zlib.compress(data) if encoding == "deflate" else gzip.compress(data)
    for content in (packed, pieces(packed, 1000), pieces(packed, 100_000)):
        answer = await client.post("/v1/x", content=content, headers={"content-encoding": encoding})
        assert (answer.status_code, answer.content == data) == (200, True)


async def test_files_of_several_members_and_empty_bodies_are_read(client: httpx.AsyncClient) -> None:
    packed = gzip.compress(b"first") + gzip.compress(b"") + gzip.compress(b"second")
    for content in (packed, pieces(packed, 1), b""):
        answer = await client.post("/v1/x", content=content, headers={"content-encoding": "gzip"})
        assert answer.content == (b"" if content == b"" else b"firstsecond")
    plain = await client.post("/v1/x", content=b"{}", headers={"content-encoding": "identity"})
    assert plain.content == b"{}"


@pytest.mark.parametrize("path", PATHS)
async def test_limit_counts_decompressed_bytes(client: httpx.AsyncClient, path: str) -> None:
    bomb = gzip.compress(b"\0" * (2 * MIB + 1))
    assert len(bomb) < 3000
    answer = await client.post(path, content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert "MiB" in answer.text


BROKEN = {
    "not compressed": b'{"prompt": "a"}',
    "cut": gzip.compress(PLAIN["random"])[:-9],
    "cut in the header": gzip.compress(b"a")[:5],
    "wrong checksum": gzip.compress(b"abc")[:-8] + bytes(8),
    "followed by something": gzip.compress(b"abc") + b"something",
    "blocks of nothing": zlib.compressobj(wbits=31).flush(zlib.Z_FULL_FLUSH) + b"\0\0\0\xff\xff" * 20_000,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("what", BROKEN)
async def test_broken_data_is_refused(client: httpx.AsyncClient, path: str, what: str) -> None:
    for content in (BROKEN[what], pieces(BROKEN[what], 1000)):
        answer = await client.post(path, content=content, headers={"content-encoding": "gzip"})
        assert answer.status_code == 400, answer.text
        assert PATHS[path](answer.json())
        assert "content encoding" in answer.text


@pytest.mark.parametrize("path", PATHS)
async def test_other_encodings_are_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=bz2.compress(b"{}"), headers={"content-encoding": "br"})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    assert "gzip" in answer.text


async def test_broken_data_is_no_unexpected_error() -> None:
    """The application may render the error itself; a traceback in the log would be as many as a client wants."""
    raised: list[BadRequest] = []

    async def read(scope: Any, receive: Any, send: Any) -> None:
        try:
            await Request(scope, receive).body()
        except BadRequest as error:
            raised.append(error)
            await Response(str(error), 400)(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(CompressedBodies(read)), base_url="http://t") as client:
        answer = await client.post("/prompt", content=b"no gzip", headers={"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert len(raised) == 1
