"""Requests that the server sends to a worker, dispatched by name."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.process.offload import in_thread
from invokeclone.worker.backend.errors import NotOnThisWorker
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.language import Language

Body = dict[str, Any]
Answer = Callable[[Body], Awaitable[Any]]


class UnknownRequest(ValueError):
    """The request name is unknown."""


class Requests:
    """Handles requests with a worker's tools."""

    def __init__(self, tools: Tools) -> None:
        """Handle requests with `tools`."""
        self._tools = tools
        self._answers: dict[str, Answer] = {
            "cache_status": self._cache_status,
            "clear_invocation_cache": self._clear_cache,
            "enable_invocation_cache": self._enable_cache,
            "disable_invocation_cache": self._disable_cache,
            "model_cache_stats": self._model_stats,
            "empty_model_cache": self._empty_models,
            "device_memory": self._device_memory,
            "set_log_level": self._set_log_level,
            "write_text": Language(tools).write,
            "convert_model": self._convert_model,
        }

    async def answer(self, name: str, body: Body) -> Any:
        """Handle a request and return the result as plain data; raises UnknownRequest."""
        if name not in self._answers:
            raise UnknownRequest(f"unknown worker request {name!r}")
        return await self._answers[name](body)

    async def _cache_status(self, _body: Body) -> Any:
        return self._tools.cache.status()

    async def _clear_cache(self, _body: Body) -> Any:
        self._tools.cache.clear()

    async def _enable_cache(self, _body: Body) -> Any:
        self._tools.cache.enable()

    async def _disable_cache(self, _body: Body) -> Any:
        self._tools.cache.disable()

    async def _model_stats(self, _body: Body) -> Any:
        return self._tools.engine.stats()

    async def _empty_models(self, _body: Body) -> Any:
        await in_thread(self._tools.engine.empty)

    async def _device_memory(self, _body: Body) -> Any:
        return await in_thread(self._tools.engine.device_memory)

    async def _convert_model(self, body: Body) -> Any:
        """Convert a single-file model to a folder; `refused` has the reason if that is not possible."""
        if self._tools.remote is not None:
            raise NotOnThisWorker("models are converted by a worker on the server's machine, and none runs there")
        try:
            await in_thread(self._tools.engine.convert, **body)
        except ValueError as error:
            return {"refused": str(error)}
        return {}

    async def _set_log_level(self, body: Body) -> Any:
        logging.getLogger(log.ROOT).setLevel(int(body["level"]))
