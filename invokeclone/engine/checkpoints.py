"""Cancellation checkpoints in torch.

They run before each module's forward while a cancel is pending, and at each tensor during a load. Module hooks are
installed only from a cancel until its item ends, because permanent hooks would slow down every module call.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from invokeclone.graph.checkpoints import checkpoint

_watch: list[RemovableHandle] = []


def watch_modules() -> None:
    """Install a checkpoint before each module's forward, in all threads, until `unwatch_modules`."""
    if not _watch:
        _watch.append(register_module_forward_pre_hook(_before_forward))


def unwatch_modules() -> None:
    """Remove the checkpoints from the modules."""
    while _watch:
        _watch.pop().remove()


def _before_forward(_module: nn.Module, _inputs: Any) -> None:
    checkpoint()


class _EachFunction(TorchFunctionMode):  # type: ignore[misc]  # torch does not type it
    """Runs a checkpoint at every torch function called by this thread inside the block."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        checkpoint()
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Run a checkpoint at each tensor that is created, read or copied inside the block."""
    checkpoint()
    with _EachFunction():
        yield
