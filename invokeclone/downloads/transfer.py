"""Download of one file: request, resume, retry, verification and final rename.

Updates the job and calls `progress`. Does not depend on the queue or on events.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from invokeclone.downloads import names
from invokeclone.downloads.errors import ChecksumMismatch, DownloadFailed, NotAModelFile, TransientError
from invokeclone.downloads.partial_file import PartialFile, SourceState, check_space
from invokeclone.downloads.proxy import url_of
from invokeclone.downloads.schemas import DownloadJob
from invokeclone.downloads.web import WebClient, check_status, translate_errors, without_query
from invokeclone.kit import log
from invokeclone.kit.process.offload import in_thread, run_to_completion

if TYPE_CHECKING:
    from aiohttp import ClientResponse

MAX_TRIES = 6
"""Number of consecutive failures without progress before a download is given up."""
INITIAL_RETRY_DELAY_S = 1.0
MAX_RETRY_DELAY_S = 60.0
WRITE_BUFFER_BYTES = 1024 * 1024
SPACE_CHECK_BYTES = 64 * 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_LINKED_CHECKSUM = re.compile(r'"?([0-9a-f]{64})"?')
_HTML_START = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)

_log = log.get("download")


class Transfer:
    """The transfer of one job. Call `run` once; if cancelled, it keeps the partial file."""

    def __init__(
        self,
        web: WebClient,
        job: DownloadJob,
        *,
        sha256: str | None,
        claim: Callable[[Path], None],
        progress: Callable[[], None],
        initial_retry_delay: float = INITIAL_RETRY_DELAY_S,
    ) -> None:
        """Prepare the transfer of `job`; `claim` is called with the file's path and raises if it is in use."""
        self._web = web
        self._job = job
        self._sha256 = sha256
        self._claim = claim
        self._progress = progress
        self._initial_retry_delay = initial_retry_delay
        self._resumed = self._restarted = False
        self.partial_file: PartialFile | None = None

    async def run(self) -> None:
        """Download the file. Raises the errors of `downloads.errors`, or OSError."""
        failures, previous_bytes, attempts = 0, -1, 0
        while True:
            try:
                if await self._attempt():
                    return
                attempts += 1
                if attempts >= MAX_TRIES:
                    raise DownloadFailed(
                        f"{without_query(str(self._job.source))} sends unusable responses to range requests"
                    )
            except TransientError as error:
                failures = failures + 1 if self._job.bytes <= previous_bytes else 1
                previous_bytes = self._job.bytes
                if failures >= MAX_TRIES:
                    raise DownloadFailed(f"{error} (given up after {failures} tries)") from error
                delay = min(error.retry_after or self._initial_retry_delay * 2 ** (failures - 1), MAX_RETRY_DELAY_S)
                _log.info("%s: %s; retrying in %.1f s", without_query(str(self._job.source)), error, delay)
                await asyncio.sleep(delay)
            except ChecksumMismatch:
                await self._drop()
                if not self._resumed or self._restarted:
                    raise
                self._restarted = True
                self._reset_progress("the resumed file failed verification")
            finally:
                if self.partial_file is not None:
                    await run_to_completion(self.partial_file.close)

    async def _attempt(self) -> bool:
        """Send one request that continues the partial file; return False if another request is needed."""
        job, url = self._job, self._job.canonical_url or str(self._job.source)
        size, state = await self._load_partial(url)
        if state is not None and size == state.total:
            await self._finish_partial(size, state)
            return True
        headers = {"Range": f"bytes={size}-"} if state is not None else {}
        if state is not None and state.validator:
            headers["If-Range"] = state.validator
        hops: list[Mapping[str, str]] = []
        async with self._web.get(url, token=job.access_token, headers=headers, hops=hops) as response:
            check_status(response)
            self._learn_checksum(hops)
            if self.partial_file is None:
                await self._resolve_path(response)
                if (await self._load_partial(url))[0]:
                    return False
            offset = self._resume_offset(response, size, state, url)
            if offset is None:
                await self._drop()
                return False
            await self._receive(response, offset, url)
        return True

    async def _finish_partial(self, size: int, state: SourceState) -> None:
        """Finish a partial file that already has all its bytes."""
        assert self.partial_file is not None
        self._resumed = True
        await run_to_completion(self.partial_file.open, state, size)
        self._job.bytes = self._job.total_bytes = size
        await run_to_completion(self.partial_file.finish)

    async def _drop(self) -> None:
        if self.partial_file is not None:
            await run_to_completion(self.partial_file.drop)

    async def _load_partial(self, url: str) -> tuple[int, SourceState | None]:
        """Return size and source state of the partial file if it can be resumed from `url`, else (0, None)."""
        if self.partial_file is None and self._job.download_path is not None:
            self._claim(self._job.download_path)
            self.partial_file = PartialFile(self._job.download_path, self._sha256)
        if self.partial_file is None:
            return 0, None
        size, state = await in_thread(self.partial_file.load_state)
        usable = state is not None and state.url == url and (state.is_identifiable or self._sha256 is not None)
        return (size, state) if usable else (0, None)

    async def _resolve_path(self, response: "ClientResponse") -> None:
        """Set the path of the file from the response, as the job only names a folder."""
        name = names.file_name(response.headers.get("Content-Disposition"), str(self._job.source))
        path = self._job.dest / name
        self._claim(path)
        self._job.download_path = path
        self.partial_file = PartialFile(path, self._sha256)

    def _learn_checksum(self, hops: list[Mapping[str, str]]) -> None:
        """Use the checksum that Hugging Face sends in the redirect to its storage, if none is known."""
        matches = [_LINKED_CHECKSUM.fullmatch(headers.get("X-Linked-ETag", "")) for headers in hops]
        self._sha256 = self._sha256 or next((match[1] for match in matches if match), None)
        if self.partial_file is not None:
            self.partial_file.sha256 = self._sha256

    def _resume_offset(self, response: "ClientResponse", size: int, state: SourceState | None, url: str) -> int | None:
        """Return how many bytes of the partial file to keep; None if it and this response must be discarded."""
        if response.status == 200:  # noqa: PLR2004  (the whole file)
            if size:
                self._reset_progress("the file has changed, or the server does not support range requests")
            return 0
        content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        current_state = self._source_state(response, url)
        is_unchanged = state is not None and (
            state.is_same_state(current_state) or not (state.is_identifiable or current_state.is_identifiable)
        )
        if response.status == 206 and content_range and int(content_range[1]) == size and is_unchanged:  # noqa: PLR2004  (a part)
            self._resumed = True
            return size
        self._reset_progress("the file has changed")
        return None

    async def _receive(self, response: "ClientResponse", offset: int, url: str) -> None:
        assert self.partial_file is not None
        job = self._job
        self._describe(response, offset)
        self._check_kind(response)
        if job.total_bytes:
            await in_thread(check_space, self.partial_file.path.parent, job.total_bytes - offset)
        await run_to_completion(self.partial_file.open, self._source_state(response, url), offset)
        job.bytes = offset
        self._progress()
        await self._copy(response, first=offset == 0)
        if job.total_bytes and job.bytes != job.total_bytes:
            raise ChecksumMismatch(f"received {job.bytes} bytes instead of {job.total_bytes}")
        job.total_bytes = job.bytes
        await run_to_completion(self.partial_file.finish)

    async def _copy(self, response: "ClientResponse", *, first: bool) -> None:
        """Write the response body in large blocks, including the rest before an interruption."""
        buffer = bytearray()
        checked_bytes = self._job.bytes
        try:
            with translate_errors():
                async for chunk in response.content.iter_any():
                    buffer += chunk
                    if len(buffer) >= WRITE_BUFFER_BYTES:
                        first = await self._write(buffer, first=first)
                    if not self._job.total_bytes and self._job.bytes - checked_bytes > SPACE_CHECK_BYTES:
                        checked_bytes = self._job.bytes
                        await in_thread(check_space, self._job.dest, SPACE_CHECK_BYTES)
        finally:
            await self._write(buffer, first=first)

    async def _write(self, buffer: bytearray, *, first: bool) -> bool:
        if first and _HTML_START.match(buffer):
            buffer.clear()
            raise NotAModelFile(f"{without_query(str(self._job.source))} is a web page, not a model file")
        assert self.partial_file is not None
        data = bytes(buffer)
        buffer.clear()
        if data:
            await run_to_completion(self.partial_file.write, data)
            self._job.bytes += len(data)
            self._progress()
        return first and not data

    def _describe(self, response: "ClientResponse", offset: int) -> None:
        job, length = self._job, response.content_length
        job.content_type = response.content_type
        job.etag, job.last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
        job.final_url = str(url_of(response).with_query(None).with_fragment(None))
        total = offset + length if length is not None else 0
        expected = job.expected_total_bytes
        if total and expected and total != expected:
            raise ChecksumMismatch(
                f"{without_query(str(job.source))} has {total} bytes instead of the {expected} announced by its source"
            )
        job.total_bytes = total or expected or 0

    def _check_kind(self, response: "ClientResponse") -> None:
        assert self.partial_file is not None
        is_html = response.content_type in {"text/html", "application/xhtml+xml"}
        if is_html and self.partial_file.target.suffix.lower() not in {".html", ".htm"}:
            raise NotAModelFile(f"{without_query(str(self._job.source))} is a web page, not a model file")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadFailed(
                f"{without_query(str(self._job.source))} is compressed although no encoding was requested"
            )

    def _reset_progress(self, reason: str) -> None:
        self._job.resume_from_scratch, self._job.resume_message = True, f"restarted from the beginning: {reason}"
        self._job.bytes = 0

    def _source_state(self, response: "ClientResponse", url: str) -> SourceState:
        marks = response.headers.get("ETag"), response.headers.get("Last-Modified")
        return SourceState(url, *marks, total=self._job.total_bytes or None)


def throttle(seconds: float) -> Callable[[], bool]:
    """Return a function that returns True at most once per `seconds`."""
    last = float("-inf")

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return due
