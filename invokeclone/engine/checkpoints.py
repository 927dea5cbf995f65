"""Checkpoints inside torch: before each module of a network while a cancel is pending, and at each tensor while a model loads.

Modules are watched only from a cancel until its item has ended: a hook that is always there would cost every call of every module.
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
    """Make a checkpoint of each module's forward, in all threads, until `unwatch_modules`."""
    if not _watch:
        _watch.append(register_module_forward_pre_hook(_before_forward))


def unwatch_modules() -> None:
    """Take the checkpoints out of the modules."""
    while _watch:
        _watch.pop().remove()


def _before_forward(_module: nn.Module, _inputs: Any) -> None:
    checkpoint()


class _EachFunction(TorchFunctionMode):  # type: ignore[misc]  # torch does not type it
    """Makes a checkpoint of every torch function that is called in its block by this thread."""

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
    """Make a checkpoint of each tensor that is made, read or copied inside the block."""
    checkpoint()
    with _EachFunction():
        yield
