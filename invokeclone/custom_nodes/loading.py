"""Importing and unloading packs in this process; for workers and the describe process, not for the server.

A pack is imported as a package with the name of its folder. Any exception of a pack is reported as PackError.
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
    """A pack could not be imported; the message has the reason."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        """Create with a reason; `missing` means that a library of the pack is not installed."""
        super().__init__(message)
        self.missing = missing


def load(folder: Path) -> None:
    """Import the pack in `folder`; raises PackError and unloads the pack on failure."""
    name = folder.name
    if name not in _loaded and is_taken(name):
        raise PackError(f"{name!r} is already the name of a Python module: rename the folder")
    alias.install()
    forget(name)
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise PackError(f"{folder} is not a Python package")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _loaded.add(name)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        _log.warning("the node pack %s cannot be imported:\n%s", name, traceback.format_exc())
        forget(name)
        raise PackError(f"{type(error).__name__}: {error}", missing=isinstance(error, ModuleNotFoundError)) from error


def forget(name: str) -> None:
    """Remove a pack's nodes and modules from this process."""
    registry.forget_pack(name)
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        if name in _loaded:
            del sys.modules[module]
    _loaded.discard(name)


def replace(folder: Path, names: Iterable[str]) -> None:
    """Unload all packs and import these; a pack that fails is logged and skipped."""
    for name in tuple(_loaded):
        forget(name)
    importlib.invalidate_caches()
    for name in names:
        try:
            load(folder / name)
        except PackError:  # logged already
            continue
