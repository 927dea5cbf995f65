"""Responses of `generateContent` and its stream."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Response

from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import ResolvedRequest
from invokeclone.shims import image_io, usage
from invokeclone.shims.compat_api import Problem, json_response, problem_of
from invokeclone.shims.runs import Run, Runs

_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def render(problem: Problem) -> Response:
    """Return an error in Google's form."""
    return json_response(_error(problem), problem.common_status, problem.headers)


def _error(problem: Problem) -> dict[str, Any]:
    status = problem.common_status
    message = problem.message if problem.param is None else f"{problem.message} ({problem.param})"
    return {"error": {"code": status, "message": message, "status": _STATUS_NAMES.get(status, "INTERNAL")}}


@dataclass(frozen=True)
class ContentResult:
    """The request that the images of a response belong to."""

    resources: Resources
    resolved: ResolvedRequest
    prompt: str

    async def response(self, names: Sequence[str], first: int = 0, count: int | None = None) -> dict[str, Any]:
        """Return a response with images, a candidate each; `first` is the index of the first one.

        Usage is that of `count` images, by default of these.
        """
        files = [image_io.encode_base64(await image_io.read_image_file(self.resources, name)) for name in names]
        candidates = [
            {
                "content": {"role": "model", "parts": [{"inlineData": {"mimeType": "image/png", "data": file}}]},
                "finishReason": "STOP",
                "index": index,
            }
            for index, file in enumerate(files, first)
        ]
        usage_metadata = self._usage(len(files) if count is None else count)
        return {
            "candidates": candidates,
            "usageMetadata": usage_metadata,
            "modelVersion": self.resolved.config.name,
        }

    def _usage(self, count: int) -> dict[str, int]:
        prompt_tokens = usage.text_tokens(self.prompt)
        settings = self.resolved.settings
        image_tokens = count * usage.image_tokens(settings.width, settings.height)
        return {
            "promptTokenCount": prompt_tokens,
            "candidatesTokenCount": image_tokens,
            "totalTokenCount": prompt_tokens + image_tokens,
        }


async def stream_images(runs: Runs, run: Run, result: ContentResult) -> AsyncIterator[dict[str, Any]]:
    """Yield a response for each image as it is finished; an error is the last one.

    Closes the run, and cancels what has not ended when the client stops reading.
    """
    count = 0
    is_over = False
    try:
        async for name in run.iterate_image_names():
            yield await result.response([name], count, count + 1)
            count += 1
        is_over = True
    except Exception as error:  # noqa: BLE001  (the status is already sent, so the stream carries the error)
        is_over = True
        yield _error(problem_of(error))
    finally:
        runs.close(run)
        if not is_over:
            await runs.cancel(run)


async def as_events(responses: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield responses as server-sent events."""
    async with contextlib.aclosing(responses):  # type: ignore[type-var]
        async for response in responses:
            yield b"data: " + orjson.dumps(response) + b"\r\n\r\n"


async def as_array(responses: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield responses as the pieces of a JSON array."""
    separator = b"["
    async with contextlib.aclosing(responses):  # type: ignore[type-var]
        async for response in responses:
            yield separator + orjson.dumps(response)
            separator = b",\r\n"
    yield b"]" if separator != b"[" else b"[]"
