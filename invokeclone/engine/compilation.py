"""Compilation of a network's repeated blocks with torch.compile. Images differ by rounding."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from invokeclone.kit import log

logger = log.get("engine.compilation")


@contextmanager
def compile_blocks(network: nn.Module, *, enabled: bool, backend: str = "inductor") -> Iterator[None]:
    """Run the network's repeated blocks compiled inside the block, if `enabled`.

    torch keeps compiled code for later runs of the same sizes. Blocks that cannot be compiled run as they are, and so do
    all if layers inside them have changes of this run: streamed weights, LoRAs that are computed beside the weights,
    reused attention.
    """
    blocks = _blocks(network) if enabled else []
    if not blocks:
        yield
        return
    if any(_is_changed(module) for block in blocks for module in block.modules()):
        logger.info("torch_compile is not used in this run: layers of the model have LoRAs, caches or streamed weights")
        yield
        return
    import torch._dynamo

    with ExitStack() as stack:
        # hooks that a run adds to layers must not be missed by code compiled without them
        stack.enter_context(torch._dynamo.config.patch(skip_nnmodule_hook_guards=False, suppress_errors=True))  # noqa: SLF001
        for block in blocks:
            block.compile(backend=backend)
            stack.callback(setattr, block, "_compiled_call_impl", None)
        yield


def _blocks(network: Any) -> list[nn.Module]:
    """Return the blocks by their class names, which diffusers' models declare."""
    names = getattr(network, "_repeated_blocks", None) or getattr(network, "_no_split_modules", None) or ()
    return [module for module in network.modules() if type(module).__name__ in names]


def _is_changed(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)  # noqa: SLF001
