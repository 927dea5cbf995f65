"""Statistics and clearing of the model caches of all workers."""

from invokeclone.kit.workers import Workers, parse_replies
from invokeclone.models.records.schemas import CacheStats


async def stats(workers: Workers) -> CacheStats | None:
    """Return the summed statistics of all model caches; None if no worker has any."""
    replies = await workers.ask_all("model_cache_stats", {})
    answers = parse_replies(CacheStats, [reply for reply in replies if reply])
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
    """Make every worker drop the models that are not in use."""
    await workers.ask_all("empty_model_cache", {})
