"""Responses of the Images API: one object with all images, or a stream of events."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from invokeclone.kit.resources import Resources
from invokeclone.shims import image_io, usage
from invokeclone.shims.compat_api import problem_of
from invokeclone.shims.image_io import Format
from invokeclone.shims.openai import errors
from invokeclone.shims.runs import Run, Runs

Kind = Literal["image_generation", "image_edit"]


@dataclass(frozen=True)
class ResponseOptions:
    """Properties of the request that determine its response."""

    kind: Kind
    prompt: str
    width: int
    height: int
    format: Format = "png"
    compression: int | None = None
    quality: str = "auto"
    input_count: int = 0
    """Number of images in the request."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def common_fields(self) -> dict[str, Any]:
        """Fields that every response and event has."""
        qualities = {"low": "low", "high": "high", "hd": "high", "xhigh": "high", "max": "high"}
        return {
            "size": f"{self.width}x{self.height}",
            "quality": qualities.get(self.quality, "medium"),
            "background": "opaque",
            "output_format": self.format,
        }

    def usage(self, count: int) -> dict[str, Any]:
        """Return token counts for `count` images."""
        tokens_per_image = usage.image_tokens(self.width, self.height)
        prompt_tokens = usage.text_tokens(self.prompt)
        input_image_tokens = tokens_per_image * self.input_count
        output_tokens = tokens_per_image * count
        return {
            "input_tokens": prompt_tokens + input_image_tokens,
            "input_tokens_details": {"text_tokens": prompt_tokens, "image_tokens": input_image_tokens},
            "output_tokens": output_tokens,
            "output_tokens_details": {"text_tokens": 0, "image_tokens": output_tokens},
            "total_tokens": prompt_tokens + input_image_tokens + output_tokens,
        }


async def complete_response(
    resources: Resources, options: ResponseOptions, names: list[str], links: list[str] | None, *, with_base64: bool
) -> dict[str, Any]:
    """Return all images in one object: with their URLs if there are `links`, in base64 if `with_base64`."""
    data: list[dict[str, str]] = [{"url": link} for link in links] if links else [{} for _ in names]
    for item, name in zip(data, names, strict=True) if with_base64 else ():
        file = await image_io.read_image_file(resources, name, options.format, options.compression)
        item["b64_json"] = image_io.encode_base64(file)
    return {"created": options.created, "data": data, **options.common_fields, "usage": options.usage(len(names))}


async def stream_events(runs: Runs, run: Run, options: ResponseOptions, partial: int) -> AsyncIterator[bytes]:
    """Yield up to `partial` previews of each image, and the images once all have ended; an error is the last event.

    Closes the run, and cancels what has not ended when the client stops reading.
    """
    run_task = asyncio.ensure_future(run.image_names())
    preview_counts: dict[int, int] = {}
    try:
        while not run_task.done():
            step_task = asyncio.ensure_future(run.progress_events.get())
            await asyncio.wait({step_task, run_task}, return_when=asyncio.FIRST_COMPLETED)
            if not step_task.done():
                step_task.cancel()
                break
            step = step_task.result()
            index = preview_counts.get(step.item_id, 0)
            if step.preview and index < partial and (step.fraction or 0.0) >= (index + 1) / (partial + 1):
                preview_counts[step.item_id] = index + 1
                data = await image_io.resize_preview(step.preview, (options.width, options.height), options.format)
                yield _event(options, "partial_image", data, partial_image_index=index)
        for name in await run_task:
            data = await image_io.read_image_file(runs.resources, name, options.format, options.compression)
            yield _event(options, "completed", data, usage=options.usage(1))
    except Exception as error:  # noqa: BLE001  (the status is already sent, so the stream carries the error)
        yield b"event: error\ndata: " + orjson.dumps(errors.body(problem_of(error))) + b"\n\n"
    finally:
        runs.close(run)
        if not run_task.done():
            run_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await runs.cancel(run)


def _event(options: ResponseOptions, name: str, data: bytes, **extra: Any) -> bytes:
    kind = f"{options.kind}.{name}"
    content = {
        "type": kind,
        "b64_json": image_io.encode_base64(data),
        "created_at": int(time.time()),
        **options.common_fields,
        **extra,
    }
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"
