"""Lists of all names, which may be a million: read, written as JSON and packed piece by piece; it knows no filter and no record.

The pieces are ready before the first is sent: a client that reads slowly would keep the database's log from being written back.
"""

import zlib
from collections.abc import AsyncIterator

import orjson
from anyio.to_thread import run_sync
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from invokeclone.kit.prepared import Prepared, Rows

AT_A_TIME = 16_384
"""Names in a piece: some milliseconds of work."""

PACKED_FROM = 16 * 1024
ASIDE_FROM = 64 * 1024
"""Bytes from which on packing leaves the event loop."""

AT_ONCE = 5
"""Pieces up to which they are sent in one go: a list that is one piece of names, with what stands around it."""

GZIP = zlib.MAX_WBITS + 16


async def pieces(
    connection: AsyncConnection, statement: Prepared, key: str, starred_count: int, *, as_json: bool = False
) -> list[bytes]:
    """Return the JSON of a list of names under `key` and what is counted of it; the names are the statement's first column.

    With `as_json` the column holds the JSON of each item.
    """
    total = 0
    found = [b'{"%b":[' % key.encode()]
    async for rows in statement.pieces(connection, AT_A_TIME):
        if total:
            found.append(b",")
        total += len(rows)
        found.append(await run_sync(_piece, rows, as_json) if len(rows) == AT_A_TIME else _piece(rows, as_json))
    found.append(b'],"starred_count":%d,"total_count":%d}' % (starred_count, total))
    return found


def _piece(rows: Rows, as_json: bool) -> bytes:
    if as_json:
        return ",".join([row[0] for row in rows]).encode()
    return orjson.dumps([row[0] for row in rows])[1:-1]


async def answer(request: Request, found: list[bytes], level: int) -> Response:
    """Return the pieces as an answer, gzipped here if they are many and the client and the settings allow.

    Names are random letters: looking for repetitions, as gzip does, finds none. Huffman coding alone takes an eighth of the
    time of level 9 (10,000 names: 6 ms against 50) and leaves a tenth more bytes.
    """
    headers = {"Vary": "Accept-Encoding"}
    size = sum(map(len, found))
    if level and size >= PACKED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        found = await run_sync(_packed, found) if size >= ASIDE_FROM else _packed(found)
        size = sum(map(len, found))
    if len(found) <= AT_ONCE:
        return Response(b"".join(found), media_type="application/json", headers=headers)
    headers["Content-Length"] = str(size)
    return StreamingResponse(_each(found), media_type="application/json", headers=headers)


def _packed(found: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, GZIP, zlib.DEF_MEM_LEVEL + 1, zlib.Z_HUFFMAN_ONLY)
    packed = [packer.compress(piece) for piece in found]
    return [piece for piece in (*packed, packer.flush()) if piece]


async def _each(found: list[bytes]) -> AsyncIterator[bytes]:
    for piece in found:
        yield piece
