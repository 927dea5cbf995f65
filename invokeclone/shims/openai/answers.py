"""What the Images API answers: one object with every picture, or a stream of events."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from invokeclone.kit.resources import Resources
from invokeclone.shims import pictures, usage
from invokeclone.shims.dialect import problem_of
from invokeclone.shims.openai import errors
from invokeclone.shims.pictures import Format
from invokeclone.shims.runs import Run, Runs

Kind = Literal["image_generation", "image_edit"]


@dataclass(frozen=True)
class Form:
    """What the pictures are answered as."""

    kind: Kind
    prompt: str
    width: int
    height: int
    format: Format = "png"
    compression: int | None = None
    quality: str = "auto"
    inputs: int = 0
    """How many pictures were sent along."""
    made: int = field(default_factory=lambda: int(time.time()))

    @property
    def about(self) -> dict[str, Any]:
        """What is said of every picture."""
        known = {"low": "low", "high": "high", "hd": "high", "xhigh": "high", "max": "high"}
        return {
            "size": f"{self.width}x{self.height}",
            "quality": known.get(self.quality, "medium"),
            "background": "opaque",
            "output_format": self.format,
        }

    def usage(self, count: int) -> dict[str, Any]:
        """Return token counts for `count` pictures."""
        patches = usage.of_picture(self.width, self.height)
        text = usage.of_text(self.prompt)
        sent = patches * self.inputs
        made = patches * count
        return {
            "input_tokens": text + sent,
            "input_tokens_details": {"text_tokens": text, "image_tokens": sent},
            "output_tokens": made,
            "output_tokens_details": {"text_tokens": 0, "image_tokens": made},
            "total_tokens": text + sent + made,
        }


async def whole(resources: Resources, form: Form, names: list[str], links: list[str] | None) -> dict[str, Any]:
    """Return every picture in one object: as addresses where there are `links`, else in base64."""
    if links is not None:
        data = [{"url": link} for link in links]
    else:
        files = [await pictures.packed(resources, name, form.format, form.compression) for name in names]
        data = [{"b64_json": pictures.base64_of(file)} for file in files]
    return {"created": form.made, "data": data, **form.about, "usage": form.usage(len(names))}


async def streamed(runs: Runs, run: Run, form: Form, partial: int) -> AsyncIterator[bytes]:
    """Yield events as pictures come: up to `partial` previews each, then the picture; an error ends the stream as one.

    Whoever stops reading cancels what has not ended.
    """
    finishing = asyncio.ensure_future(run.pictures())
    seen: dict[int, int] = {}
    try:
        while not finishing.done():
            stepping = asyncio.ensure_future(run.steps.get())
            await asyncio.wait({stepping, finishing}, return_when=asyncio.FIRST_COMPLETED)
            if not stepping.done():
                stepping.cancel()
                break
            step = stepping.result()
            index = seen.get(step.item_id, 0)
            if step.preview and index < partial and (step.share or 0.0) >= (index + 1) / (partial + 1):
                seen[step.item_id] = index + 1
                data = await pictures.enlarged_preview(step.preview, (form.width, form.height), form.format)
                yield _event(form, "partial_image", data, partial_image_index=index)
        for name in await finishing:
            data = await pictures.packed(runs.resources, name, form.format, form.compression)
            yield _event(form, "completed", data, usage=form.usage(1))
    except Exception as error:  # noqa: BLE001  (the status is long sent: the stream itself says what went wrong)
        yield b"event: error\ndata: " + orjson.dumps(errors.body(problem_of(error))) + b"\n\n"
    finally:
        runs.close(run)
        if not finishing.done():
            finishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await runs.leave(run)


def _event(form: Form, name: str, data: bytes, **more: Any) -> bytes:
    kind = f"{form.kind}.{name}"
    content = {
        "type": kind,
        "b64_json": pictures.base64_of(data),
        "created_at": int(time.time()),
        **form.about,
        **more,
    }
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"
