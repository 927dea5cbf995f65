"""First-block cache: steps whose first block changes little reuse what the other blocks added in an earlier step.

Uses diffusers' hooks on the blocks of a transformer. Images differ from those without the cache.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

_REGISTRY = "_diffusers_hook"


def is_supported(transformer: Any) -> bool:
    """Return whether a transformer is a diffusers model with support for caches."""
    return callable(getattr(transformer, "enable_cache", None))


@contextmanager
def first_block_cache(transformer: Any, threshold: float | None) -> Iterator[None]:
    """Cache blocks inside the block if there is a `threshold` and the transformer supports it. Use it for one run.

    The other blocks are computed if the relative change of the first block's result since they last were is above the
    threshold. Each call of the transformer must be inside `guidance_side`.
    """
    if threshold is None or not is_supported(transformer):
        yield
        return
    from diffusers.hooks import FirstBlockCacheConfig

    forwards = {module: module.__dict__.get("forward") for module in transformer.modules()}
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        yield
    finally:
        hooks = {hook for module in forwards for hook in _hooks(module)}
        transformer.disable_cache()
        hooks -= {hook for module in forwards for hook in _hooks(module)}
        _remove_references(hooks, forwards)


def _hooks(module: Any) -> list[Any]:
    registry = getattr(module, _REGISTRY, None)
    return [] if registry is None else list(registry.hooks.values())


def _remove_references(hooks: Iterable[Any], forwards: Mapping[Any, Any]) -> None:
    """Break the reference cycles that diffusers leaves, which would keep the weights of a model that is dropped.

    `forwards` has the modules, and what each had as its own `forward` before.
    """
    for module, forward in forwards.items():
        if hasattr(module, _REGISTRY) and not _hooks(module):
            delattr(module, _REGISTRY)
            if forward is None:
                module.__dict__.pop("forward", None)
    for hook in hooks:
        hook.fn_ref = None


def guidance_side(transformer: Any, *, positive: bool) -> AbstractContextManager[None]:
    """Return the context of a call for one side of the guidance; each side is cached separately."""
    if not getattr(transformer, "is_cache_enabled", False):
        return nullcontext()
    context: AbstractContextManager[None] = transformer.cache_context("positive" if positive else "negative")
    return context
