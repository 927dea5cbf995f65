"""Streaming parser of the upload form: the video is written to a file in chunks, never held in memory as a whole."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from invokeclone.images.errors import FormNotReadable, MetadataTooLarge, VideoTooLarge
from invokeclone.kit.config.limits import MIB
from invokeclone.kit.files.storage import create
from invokeclone.kit.process.offload import in_thread

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

METADATA_LIMIT = MIB
HEADER_LIMIT = 16 * 1024
PART_LIMIT = 16
PIECE = MIB
"""Bytes per write."""


class UploadForm(NamedTuple):
    """The fields of the form besides the video itself."""

    filename: str
    metadata: str | None


class _Form:
    """State of the parser, which calls the `on_` methods."""

    def __init__(self, check: Callable[[str, str | None], None], max_size: int) -> None:
        self._max_size = max_size
        self.video: str | None = None
        self.buffer = bytearray()
        self.metadata: bytearray | None = None
        self.complete = False
        self._check = check
        self._video_size = 0
        self._parts = 0
        self._field: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._take: Callable[[bytes], None] = self._ignore

    def on_part_begin(self) -> None:
        self._parts += 1
        self._headers = {}
        if self._parts > PART_LIMIT:
            raise FormNotReadable("the form has too many parts")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header(self._field[0], data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header(self._field[1], data[start:end])

    def _header(self, text: bytearray, data: bytes) -> None:
        text += data
        if sum(map(len, self._field)) + sum(map(len, self._headers.values())) > HEADER_LIMIT:
            raise FormNotReadable("the headers of a part of the form are too long")

    def on_header_end(self) -> None:
        name, value = self._field
        self._headers[bytes(name).lower()] = bytes(value)
        self._field = (bytearray(), bytearray())

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        match options.get(b"name"), options.get(b"filename"):
            case b"file", bytes(filename):
                self._begin_video(filename)
            case b"file", None:
                raise FormNotReadable("`file` must be a file")
            case b"metadata", _:
                self.metadata = bytearray()
                self._take = self._take_metadata
            case _:
                self._take = self._ignore

    def _begin_video(self, filename: bytes) -> None:
        if self.video is not None:
            raise FormNotReadable("there is more than one `file`")
        self.video = filename.decode(errors="replace")
        kind = self._headers.get(b"content-type")
        self._check(self.video, None if kind is None else kind.decode(errors="replace"))
        self._take = self._take_video

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._take(data[start:end])

    def on_end(self) -> None:
        self.complete = True

    def _take_video(self, data: bytes) -> None:
        self._video_size += len(data)
        if self._video_size > self._max_size:
            raise VideoTooLarge(self._max_size)
        self.buffer += data

    def _take_metadata(self, data: bytes) -> None:
        assert self.metadata is not None
        self.metadata += data
        if len(self.metadata) > METADATA_LIMIT:
            raise MetadataTooLarge(METADATA_LIMIT)

    def _ignore(self, data: bytes) -> None:
        pass


async def receive(
    body: AsyncIterator[bytes], content_type: str, path: Path, check: Callable[[str, str | None], None], max_size: int
) -> UploadForm:
    """Write the `file` of a form, of at most `max_size` bytes, to a new file at `path` and return the other fields.

    `check` is called with the name and content type of the file before any of it is read, and may raise. Raises
    FormNotReadable, VideoTooLarge, MetadataTooLarge, UploadInterrupted, OSError; the caller removes the file.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise FormNotReadable("the body must be a multipart form")
    form = _Form(check, max_size)
    try:
        await _feed(form, MultipartParser(options[b"boundary"], _callbacks(form)), body, path)
    except FormParserError as error:
        raise FormNotReadable(f"the form is damaged: {error}") from error
    if not form.complete:
        raise FormNotReadable("the form is incomplete")
    if form.video is None:
        raise FormNotReadable("the form has no `file`")
    return UploadForm(form.video, _text(form.metadata))


def _callbacks(form: _Form) -> "MultipartCallbacks":
    names = (
        "part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end",
    )  # fmt: skip
    return cast("MultipartCallbacks", {f"on_{name}": getattr(form, f"on_{name}") for name in names})


async def _feed(form: _Form, parser: MultipartParser, body: AsyncIterator[bytes], path: Path) -> None:
    """Parse the body as it arrives and write the video."""
    file: BinaryIO = await in_thread(lambda: create(path))
    try:
        async for data in body:
            parser.write(data)
            if len(form.buffer) >= PIECE:
                await in_thread(_write, file, form)
        await in_thread(_finish, file, form)
    finally:
        file.close()


def _write(file: BinaryIO, form: _Form) -> None:
    file.write(form.buffer)
    form.buffer.clear()


def _finish(file: BinaryIO, form: _Form) -> None:
    """Write the rest and sync the file to disk before a record refers to it."""
    _write(file, form)
    file.flush()
    os.fsync(file.fileno())


def _text(data: bytearray | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormNotReadable("the metadata is not UTF-8") from error
