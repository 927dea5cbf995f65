"""One file from an address to a path: asked for, gone on with after a break, tried again, checked, put in place.

It fills in the job as it goes and calls `progress`; it knows nothing of queues and events.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from invokeclone.downloads import names
from invokeclone.downloads.errors import ChecksumMismatch, DownloadFailed, NotAModelFile, TryAgain
from invokeclone.downloads.part import Note, PartialFile, check_space
from invokeclone.downloads.schemas import DownloadJob
from invokeclone.downloads.web import Web, check_status, reading, shown
from invokeclone.kit import log
from invokeclone.kit.process.offload import in_thread

if TYPE_CHECKING:
    from aiohttp import ClientResponse

T = TypeVar("T")

TRIES = 6
"""How often in a row a download may fail without having got on."""
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
WRITE_AT_ONCE = 1024 * 1024
CHECK_SPACE_EVERY = 64 * 1024 * 1024
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_LINKED = re.compile(r'"?([0-9a-f]{64})"?')
_PAGE = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)

_log = log.get("download")


class Transfer:
    """The work on one job. `run` it once; cancelling its task keeps what is here, `part.drop` removes that."""

    def __init__(
        self,
        web: Web,
        job: DownloadJob,
        *,
        sha256: str | None,
        claim: Callable[[Path], None],
        progress: Callable[[], None],
        first_wait: float = FIRST_WAIT_S,
    ) -> None:
        """Fetch what `job` says; `claim` is told the file's path once known and raises if it is taken."""
        self._web = web
        self._job = job
        self._sha256 = sha256
        self._claim = claim
        self._progress = progress
        self._first_wait = first_wait
        self._resumed = self._mended = False
        self.part: PartialFile | None = None

    async def run(self) -> None:
        """Fetch the file. Raises the errors of this room, or OSError."""
        failures, before, asked = 0, -1, 0
        while True:
            try:
                if await self._attempt():
                    return
                asked += 1
                if asked >= TRIES:
                    raise DownloadFailed(f"{shown(str(self._job.source))} answers with what wasn't asked for")
            except TryAgain as error:
                failures = failures + 1 if self._job.bytes <= before else 1
                before = self._job.bytes
                if failures >= TRIES:
                    raise DownloadFailed(f"{error} (given up after {failures} tries)") from error
                wait = min(error.after or self._first_wait * 2 ** (failures - 1), LONGEST_WAIT_S)
                _log.info("%s: %s; again in %.1f s", shown(str(self._job.source)), error, wait)
                await asyncio.sleep(wait)
            except ChecksumMismatch:
                await self._drop()
                if not self._resumed or self._mended:
                    raise
                self._mended = True
                self._anew("the parts did not fit together")
            finally:
                if self.part is not None:
                    await finished(self.part.close)

    async def _attempt(self) -> bool:
        """Ask once, from where the last attempt ended; return False if it must be asked again, in another way."""
        job, url = self._job, self._job.canonical_url or str(self._job.source)
        size, note = await self._found(url)
        if note is not None and size == note.total:
            await self._finish_found(size, note)
            return True
        headers = {"Range": f"bytes={size}-"} if note is not None else {}
        if note is not None and note.validator:
            headers["If-Range"] = note.validator
        hops: list[Mapping[str, str]] = []
        async with self._web.get(url, token=job.access_token, headers=headers, hops=hops) as response:
            check_status(response)
            self._learn_checksum(hops)
            if self.part is None:
                await self._name(response)
                if (await self._found(url))[0]:
                    return False
            keep = self._kept(response, size, note, url)
            if keep is None:
                await self._drop()
                return False
            await self._receive(response, keep, url)
        return True

    async def _finish_found(self, size: int, note: Note) -> None:
        """Finish a file whose last byte had come when something broke."""
        assert self.part is not None
        self._resumed = True
        await finished(self.part.open, note, size)
        self._job.bytes = self._job.total_bytes = size
        await finished(self.part.finish)

    async def _drop(self) -> None:
        if self.part is not None:
            await finished(self.part.drop)

    async def _found(self, url: str) -> tuple[int, Note | None]:
        """Return what is here already of this very address; a part of another one is worth nothing."""
        if self.part is None and self._job.download_path is not None:
            self._claim(self._job.download_path)
            self.part = PartialFile(self._job.download_path, self._sha256)
        if self.part is None:
            return 0, None
        size, note = await in_thread(self.part.found)
        usable = note is not None and note.url == url and (note.marked or self._sha256 is not None)
        return (size, note) if usable else (0, None)

    async def _name(self, response: "ClientResponse") -> None:
        """Find out what file the job writes, as it only named a folder."""
        name = names.file_name(response.headers.get("Content-Disposition"), str(self._job.source))
        path = self._job.dest / name
        self._claim(path)
        self._job.download_path = path
        self.part = PartialFile(path, self._sha256)

    def _learn_checksum(self, hops: list[Mapping[str, str]]) -> None:
        """Take the checksum that Hugging Face tells when it redirects to its storage, if none is known."""
        told = [_LINKED.fullmatch(headers.get("X-Linked-ETag", "")) for headers in hops]
        self._sha256 = self._sha256 or next((found[1] for found in told if found), None)
        if self.part is not None:
            self.part.sha256 = self._sha256

    def _kept(self, response: "ClientResponse", size: int, note: Note | None, url: str) -> int | None:
        """Return how many bytes to keep of those that are here; None: none, and ask anew, as this answer is a part."""
        if response.status == 200:  # noqa: PLR2004  (the whole file)
            if size:
                self._anew("the file has changed since, or the other side sends no parts")
            return 0
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        now = self._noted(response, url)
        fits = note is not None and (note.same_state(now) or not (note.marked or now.marked))
        if response.status == 206 and found and int(found[1]) == size and fits:  # noqa: PLR2004  (a part)
            self._resumed = True
            return size
        self._anew("the file has changed since")
        return None

    async def _receive(self, response: "ClientResponse", keep: int, url: str) -> None:
        assert self.part is not None
        job = self._job
        self._describe(response, keep)
        self._check_kind(response)
        if job.total_bytes:
            await in_thread(check_space, self.part.path.parent, job.total_bytes - keep)
        await finished(self.part.open, self._noted(response, url), keep)
        job.bytes = keep
        self._progress()
        await self._copy(response, first=keep == 0)
        if job.total_bytes and job.bytes != job.total_bytes:
            raise ChecksumMismatch(f"{job.bytes} bytes came, and not {job.total_bytes}")
        job.total_bytes = job.bytes
        await finished(self.part.finish)

    async def _copy(self, response: "ClientResponse", *, first: bool) -> None:
        """Write what comes, in large pieces; what came before a break is written too."""
        waiting = bytearray()
        checked = self._job.bytes
        try:
            with reading():
                async for chunk in response.content.iter_any():
                    waiting += chunk
                    if len(waiting) >= WRITE_AT_ONCE:
                        first = await self._write(waiting, first=first)
                    if not self._job.total_bytes and self._job.bytes - checked > CHECK_SPACE_EVERY:
                        checked = self._job.bytes
                        await in_thread(check_space, self._job.dest, CHECK_SPACE_EVERY)
        finally:
            await self._write(waiting, first=first)

    async def _write(self, waiting: bytearray, *, first: bool) -> bool:
        if first and _PAGE.match(waiting):
            waiting.clear()
            raise NotAModelFile(f"{shown(str(self._job.source))} is a web page, not a model file")
        assert self.part is not None
        data = bytes(waiting)
        waiting.clear()
        if data:
            await finished(self.part.write, data)
            self._job.bytes += len(data)
            self._progress()
        return first and not data

    def _describe(self, response: "ClientResponse", keep: int) -> None:
        job, length = self._job, response.content_length
        job.content_type = response.content_type
        job.etag, job.last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
        job.final_url = str(response.url.with_query(None).with_fragment(None))
        total = keep + length if length is not None else 0
        expected = job.expected_total_bytes
        if total and expected and total != expected:
            raise ChecksumMismatch(f"{shown(str(job.source))} has {total} bytes, and not {expected} as its source says")
        job.total_bytes = total or expected or 0

    def _check_kind(self, response: "ClientResponse") -> None:
        assert self.part is not None
        page = response.content_type in {"text/html", "application/xhtml+xml"}
        if page and self.part.target.suffix.lower() not in {".html", ".htm"}:
            raise NotAModelFile(f"{shown(str(self._job.source))} is a web page, not a model file")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadFailed(f"{shown(str(self._job.source))} comes packed although it was asked for as it is")

    def _anew(self, why: str) -> None:
        self._job.resume_from_scratch, self._job.resume_message = True, f"began anew: {why}"
        self._job.bytes = 0

    def _noted(self, response: "ClientResponse", url: str) -> Note:
        marks = response.headers.get("ETag"), response.headers.get("Last-Modified")
        return Note(url, *marks, total=self._job.total_bytes or None)


async def finished(work: Callable[..., T], *arguments: object) -> T:
    """Do blocking work in a thread, and wait for its end even when this task is cancelled meanwhile."""
    going_on = asyncio.ensure_future(in_thread(work, *arguments))
    await ended(going_on)
    return going_on.result()


async def ended(task: "asyncio.Future[T]") -> None:
    """Wait for the end of a task, even when this one is cancelled meanwhile, and be cancelled only then."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def pace(seconds: float) -> Callable[[], bool]:
    """Return a function that says yes at most once in `seconds`."""
    last = float("-inf")

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return due
