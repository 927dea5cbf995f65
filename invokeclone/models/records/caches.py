"""The model caches of all workers, seen together."""

from invokeclone.kit.workers import Workers
from invokeclone.models.records.schemas import CacheStats


async def stats(workers: Workers) -> CacheStats | None:
    """Return what all model caches did, added up; None when no worker has anything to tell."""
    answers = [CacheStats.model_validate(answer) for answer in await workers.ask_all("model_cache_stats", {}) if answer]
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
    await workers.ask_all("empty_model_cache", {})
