"""Importing packs into this process, and taking them out again; for workers and the describing process, never the server.

A pack's folder is a package whose name is the folder's. What goes wrong inside one is reported, whatever it raises.
"""

import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from invokeclone.custom_nodes import alias
from invokeclone.custom_nodes.naming import is_taken
from invokeclone.graph.invocations import registry
from invokeclone.kit import log

_log = log.get("custom_nodes")
_loaded: set[str] = set()


class PackError(Exception):
    """A pack could not be imported; the text says why."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        """Say why; `missing`: a library that the pack needs is not installed."""
        super().__init__(message)
        self.missing = missing


def load(folder: Path) -> None:
    """Import the pack in `folder`; raises PackError with nothing of it left behind."""
    name = folder.name
    if name not in _loaded and is_taken(name):
        raise PackError(f"{name!r} is the name of a Python module that is there already")
    alias.install()
    forget(name)
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise PackError(f"{folder} holds no package")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _loaded.add(name)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        _log.warning("the node pack %s can't be imported:\n%s", name, traceback.format_exc())
        forget(name)
        raise PackError(f"{type(error).__name__}: {error}", missing=isinstance(error, ModuleNotFoundError)) from error


def forget(name: str) -> None:
    """Take a pack's nodes and modules out of this process."""
    registry.forget_pack(name)
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        if name in _loaded:
            del sys.modules[module]
    _loaded.discard(name)


def replace(folder: Path, names: Iterable[str]) -> None:
    """Have just these packs imported, each anew; one that fails is logged and left out."""
    for name in tuple(_loaded):
        forget(name)
    importlib.invalidate_caches()
    for name in names:
        try:
            load(folder / name)
        except PackError:  # is in the log already
            continue
