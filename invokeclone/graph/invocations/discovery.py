"""The one discovery of families and components: a folder in either package takes part by the modules it has.

`spec` (records, rules, architectures), `fields` (values on edges, outputs), `load`, `conversion`, `nodes`, `recipe`. Whoever
needs a kind of module asks for it by name; nothing else lists families.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from types import ModuleType

PACKAGES = ("invokeclone.components", "invokeclone.families")


def modules(name: str) -> Iterator[ModuleType]:
    """Import and yield the module `name` of every component and family that has one, components first, each by its folder's name."""
    for package in PACKAGES:
        folders = sorted(
            info.name for info in pkgutil.iter_modules(importlib.import_module(package).__path__) if info.ispkg
        )
        for folder in folders:
            module = f"{package}.{folder}.{name}"
            if importlib.util.find_spec(module):
                yield importlib.import_module(module)
