"""Discovery of model families and components by the modules in their folders.

Modules are `spec` (records, rules, architectures), `fields` (values on edges, outputs), `load`, `conversion`, `nodes`
and `recipe`. All registries use `modules`; no other code lists families.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from types import ModuleType

PACKAGES = ("invokeclone.components", "invokeclone.families")


def modules(name: str) -> Iterator[ModuleType]:
    """Import and yield the module `name` of each component and family that has one, components first, by folder."""
    for package in PACKAGES:
        folders = sorted(
            info.name for info in pkgutil.iter_modules(importlib.import_module(package).__path__) if info.ispkg
        )
        for folder in folders:
            module = f"{package}.{folder}.{name}"
            if importlib.util.find_spec(module):
                yield importlib.import_module(module)
