"""What this room asks of the processes that run nodes; the server's supervisor fills it."""

from typing import Annotated, Any, Protocol, cast

from fastapi import Depends, Request

from invokeclone.models.records.schemas import CacheStats


class Workers(Protocol):
    """The running workers."""

    async def request(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask every worker that is ready and return their answers."""
        ...

    async def ask(self, name: str, body: dict[str, Any], seconds: float) -> Any:
        """Ask one worker, waiting for it to be ready, and return its answer; raises Unavailable."""
        ...


def _workers(request: Request) -> Workers:
    return cast("Workers", request.app.state.supervisor)


NeedsWorkers = Annotated[Workers, Depends(_workers)]


async def stats(workers: Workers) -> CacheStats | None:
    """Return what all model caches did, added up; None when no worker has anything to tell."""
    answers = [CacheStats.model_validate(answer) for answer in await workers.request("model_cache_stats", {}) if answer]
    if not answers:
        return None
    numbers = {
        name: sum(getattr(answer, name) for answer in answers)
        for name in CacheStats.model_fields
        if name != "loaded_model_sizes"
    }
    sizes = {key: size for answer in answers for key, size in answer.loaded_model_sizes.items()}
    return CacheStats(**numbers, loaded_model_sizes=sizes)


async def empty_caches(workers: Workers) -> None:
    """Let every worker drop the models that it doesn't use at the moment."""
    await workers.request("empty_model_cache", {})
