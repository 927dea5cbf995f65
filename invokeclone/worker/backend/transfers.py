"""Image files between a worker of another machine and the server: requests over HTTP, tied to the worker's claim.

An image that a node saves is one request: a header with its fields, the thumbnail, and the PNG. The server writes the files
and then the row, in whose transaction it checks the claim, so that a request with an old fence leaves nothing. The worker
chooses the name: the same request again, after the connection was cut, returns the record of the first.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol
from urllib.parse import urlencode
from uuid import uuid4

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from invokeclone.graph.context import CanceledException
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import files
from invokeclone.images.encoding import embedded_metadata, png
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import Conflict, Unprocessable
from invokeclone.kit.files.storage import remove_file, write_file
from invokeclone.kit.process.offload import in_thread
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.backend.protocol import NodeImage

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = "/api/v1/workers/items/{item_id}/images"
"""Path of the images of an item. Names are in the query, as a path would be normalized."""
RETRY_S = (0.2, 1.0, 3.0, 10.0, 10.0, 10.0)
"""Delays before a transfer is tried again after the connection was cut: longer than the lease of a claim in all."""
_LENGTH = struct.Struct(">I")
MAX_HEADER = 16 * 1024 * 1024
MAX_THUMBNAIL = 1024 * 1024


class BinaryTransport(Protocol):
    """Transfers files over authenticated HTTP requests to the server."""

    def get(self, path: str, start: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Give the content of the response from byte `start` on, in chunks.

        Raises the errors of `errors.raise_status`, ConnectionError if the connection is cut.
        """
        ...

    async def get_json(self, path: str) -> Any:
        """Return the content of a JSON response; raises the same errors."""
        ...

    async def post(self, path: str, body: bytes) -> Any:
        """Send bytes and return the content of the JSON response; raises the same errors."""
        ...


class ImageHeader(BaseModel):
    """The fields of an image that a worker sends."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.png$")]
    category: ImageCategory
    node_id: str
    is_intermediate: bool
    board_id: str | None
    metadata: str | None
    has_workflow: bool
    thumbnail_size: Annotated[int, Field(gt=0, le=MAX_THUMBNAIL)]


class InvalidTransfer(Unprocessable):
    """A worker sent an image in another format than that of this module."""


class SentImage:
    """The parts of an image that a worker sent: header, thumbnail (WebP) and file (PNG)."""

    def __init__(self, body: bytes) -> None:
        """Split the body of a request. Raises InvalidTransfer."""
        start, self.header = _parse_header(body)
        end = start + self.header.thumbnail_size
        self.webp, self.png = body[start:end], body[end:]
        if not (self.webp[:4] == b"RIFF" and self.webp[8:12] == b"WEBP"):
            raise InvalidTransfer("the thumbnail is not a WebP image")
        size = png.complete_size(self.png)
        if size is None:
            raise InvalidTransfer("the file is not a complete PNG image")
        self.width, self.height = size
        if self.header.metadata is not None and not _is_json_object(self.header.metadata):
            raise InvalidTransfer("the metadata is not a JSON object")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False


def _parse_header(body: bytes) -> tuple[int, ImageHeader]:
    length = _LENGTH.unpack_from(body)[0] if len(body) >= _LENGTH.size else 0
    end = _LENGTH.size + length
    if not 0 < length <= MAX_HEADER or end > len(body):
        raise InvalidTransfer("the request has no header")
    try:
        return end, ImageHeader.model_validate_json(body[_LENGTH.size : end])
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise InvalidTransfer(f"the header is not valid: {problem['loc']}: {problem['msg']}") from error


def pack(image: "Image", fields: NodeImage, level: int) -> bytes:
    """Return the body of the request that sends an image with a new name. Takes as long as saving it; blocks."""
    texts = embedded_metadata.texts(fields.metadata, fields.workflow, fields.graph)
    packed, webp = png.encode(image, level, texts), files.thumbnail(image)
    named = {key: value for key, value in asdict(fields).items() if key not in ("workflow", "graph")}
    header = ImageHeader(
        **named,
        name=f"{uuid4()}.png",
        has_workflow=fields.workflow is not None or fields.graph is not None,
        thumbnail_size=len(webp),
    )
    text = header.model_dump_json().encode()
    return b"".join((_LENGTH.pack(len(text)), text, webp, packed))


class ImageTransfers:
    """The image files of a worker without access to the server's: sent, and fetched into a folder of its own."""

    def __init__(self, transport: BinaryTransport, settings: Settings, folder: Path, budget: int) -> None:
        """Keep up to `budget` bytes of fetched files in `folder` between items; no other process uses it."""
        self._transport = transport
        self._settings = settings
        self._folder = folder
        self._budget = budget
        self._sizes: dict[Path, int] = {}
        self._lock = asyncio.Lock()

    async def fetch(self, item: ClaimedItem, name: str, *, thumbnail: bool) -> Path:
        """Return a copy of an image's file, which stays until the item has ended."""
        path = (
            self._folder
            / ("thumbnails" if thumbnail else "images")
            / (Path(name).stem + (".webp" if thumbnail else ".png"))
        )
        async with self._lock:
            if path in self._sizes:
                self._sizes[path] = self._sizes.pop(path)  # the most recently used
                return path
            query = urlencode({"name": name, "fence": item.fence, "thumbnail": str(thumbnail).lower()})
            address = f"{IMAGES.format(item_id=item.item_id)}?{query}"
            data = await _repeat(lambda: self._read(address))
            await in_thread(write_file, path, data)
            self._sizes[path] = len(data)
        return path

    async def _read(self, address: str) -> bytes:
        async with self._transport.get(address) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def send(self, item: ClaimedItem, image: "Image", fields: NodeImage) -> ImageDTO:
        """Send an image and return its record. Raises CanceledException if the item is not held any more, OSError."""
        body = await in_thread(pack, image, fields, self._settings.pil_compress_level)
        address = f"{IMAGES.format(item_id=item.item_id)}?fence={item.fence}"
        record = await _repeat(lambda: self._transport.post(address, body))
        return ImageDTO.model_validate(record)

    def trim(self) -> None:
        """Remove the least recently used files over the budget, between two items."""
        excess = sum(self._sizes.values()) - self._budget
        for path, size in list(self._sizes.items()):
            if excess <= 0:
                return
            remove_file(path)
            del self._sizes[path]
            excess -= size


async def _repeat(transfer: Any) -> Any:
    """Run a transfer, again if the connection is cut. Raises CanceledException if the item is not held any more."""
    for delay in (*RETRY_S, None):
        try:
            return await transfer()
        except Conflict as error:
            raise CanceledException(str(error)) from error
        except ConnectionError:
            if delay is None:
                raise
            await asyncio.sleep(delay)
    return None
