"""Lets spandrel be imported without torchvision, whose wheels need the CUDA build of torch; Python imports this at its start.

Spandrel imports three names of torchvision for architectures that the tests do not use. They are there only while
spandrel is imported: other libraries use torchvision if they find it.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

NAMES = ("InterpolationMode", "rotate", "normalize")
MODULES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


class _Loader(importlib.abc.Loader):
    """Runs spandrel beside modules that have torchvision's names."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        modules = {name: ModuleType(name) for name in MODULES}
        for name in NAMES:
            setattr(modules[MODULES[-1]], name, None)
        sys.modules.update(modules)
        try:
            self._loader.exec_module(module)
        finally:
            for name in modules:
                del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name == "spandrel" else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
