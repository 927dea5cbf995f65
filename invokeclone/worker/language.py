"""Text generation requests, run outside of the queue; progress is emitted as events.

One request runs at a time, in its own thread beside the node thread.
"""

import asyncio
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invokeclone.components.language_models.nodes import SYSTEM_PROMPT
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit import log
from invokeclone.kit.files.image_files import open_stored_image
from invokeclone.kit.files.image_modes import convert, upright
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.utilities.events import LLMTaskProgressEvent
from invokeclone.worker.backend.errors import NotOnThisWorker
from invokeclone.worker.interfaces.tools import Tools

PROGRESS_INTERVAL_S = 0.2
"""Minimum seconds between two progress events."""

Report = Callable[[str, str, int | None, int | None], None]
"""Called with the phase, a message, and the written and the largest number of tokens."""

_log = log.get("worker.language")


class Language:
    """Handles text generation requests."""

    def __init__(self, tools: Tools) -> None:
        """Use the models and events of `tools`."""
        self._tools = tools
        self._lock = asyncio.Lock()

    async def write(self, body: dict[str, Any]) -> dict[str, str | None]:
        """Return the generated `text`, or an `error`."""
        config = await self._tools.backend.model(str(body["model_key"]))
        async with self._lock:
            files = self._tools.backend.model_files()
            report = self._progress_reporter(body)
            try:
                self._require_image_file(body)
                report("loading_model", f"Loading {config.name}", None, None)
                path = await files.path(config, lambda message, _share: report("loading_model", message, None, None))
                return {"text": await in_thread(self._write, config, path, body, report), "error": None}
            except Exception as error:  # noqa: BLE001  (any error of the model is returned to the client)
                _log.exception("text generation with %s failed", config.name)
                return {"text": None, "error": f"{type(error).__name__}: {error}"}
            finally:
                files.close()

    def _require_image_file(self, body: dict[str, Any]) -> None:
        """Raise NotOnThisWorker if the image to describe is a file of another machine."""
        if "image" in body and self._tools.remote is not None:
            raise NotOnThisWorker("images are described by a worker on the server's machine, and none runs there")

    def _write(self, config: Any, path: Path, body: dict[str, Any], report: Report) -> str:
        load = self._tools.engine.load
        loaded = load(config, path, None)
        tokenizer = load(config, path, SubModelType.Tokenizer)
        pipeline = importlib.import_module("invokeclone.components.language_models.pipeline")
        total = int(body.get("max_tokens") or pipeline.DESCRIPTION_TOKENS)
        on_tokens = _throttle(lambda count: report("generating", f"{count} of at most {total} tokens", count, total))
        report("generating", "Writing", 0, total)
        with tokenizer as words, loaded as model:
            if "image" not in body:
                system_prompt = body["system_prompt"] if body["system_prompt"] is not None else SYSTEM_PROMPT
                text: str = pipeline.write(
                    *(model, words, body["prompt"], system_prompt),
                    max_tokens=total,
                    seed=int(body["seed"]),
                    device=loaded.device,
                    on_tokens=on_tokens,
                )
                return text
            with load(config, path, SubModelType.Scheduler) as processor:
                description: str = pipeline.describe(
                    *(model, words, processor, self._read_image(body["image"]), body["instruction"]),
                    device=loaded.device,
                    on_tokens=on_tokens,
                )
                return description

    def _read_image(self, key: str) -> Any:
        with open_stored_image(StoredFile(self._tools.resources.storage, key).source()) as image:
            image.load()
            return convert(upright(image), "RGB")

    def _progress_reporter(self, body: dict[str, Any]) -> Report:
        """Return a function that emits progress events to the user, unless the task has no id."""
        task_id, user_id = body.get("task_id"), body.get("user_id") or "system"

        def report(phase: str, message: str, count: int | None, total: int | None) -> None:
            if task_id is None:
                return
            share = min(count / total, 1.0) if count is not None and total else None
            event = LLMTaskProgressEvent.model_validate(
                {
                    "task_id": task_id,
                    "user_id": user_id,
                    "phase": phase,
                    "message": message,
                    "percentage": share,
                    "current_tokens": count,
                    "total_tokens": total,
                }
            )
            self._tools.loop.call_soon_threadsafe(self._tools.resources.events.emit, event)

        return report


def _throttle(callback: Callable[[int], None]) -> Callable[[int], None]:
    """Return `callback`, limited to one call per PROGRESS_INTERVAL_S."""
    last = [0.0]

    def call(count: int) -> None:
        if time.monotonic() - last[0] >= PROGRESS_INTERVAL_S:
            last[0] = time.monotonic()
            callback(count)

    return call
