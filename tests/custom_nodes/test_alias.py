"""The names that packs import, answered with what is here."""

import importlib
import sys
from collections.abc import Iterator

import pytest

from invokeclone.custom_nodes import alias, legacy_names
from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.kit.config.settings import Settings


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Answer imports for one test only."""
    finders = list(sys.meta_path)
    alias.install()
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name == "invokeai" or name.startswith("invokeai.")]:
        del sys.modules[name]


def test_every_listed_name_can_be_imported() -> None:
    module = importlib.import_module("invokeai.invocation_api")
    missing = []
    for name in sorted(alias.names()):
        try:
            getattr(module, name)
        except (AttributeError, ImportError) as error:
            missing.append((name, str(error)))
    assert missing == []


@pytest.mark.parametrize("name", sorted(alias.MODULES))
def test_every_listed_module_can_be_imported(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


def test_inner_modules_share_the_same_classes() -> None:
    for name in ("invokeai.invocation_api", "invokeai.app.invocations.baseinvocation"):
        assert importlib.import_module(name).BaseInvocation is BaseInvocation


def test_unknown_names_raise_import_errors() -> None:
    with pytest.raises(ImportError, match="no_such"):
        exec("from invokeai.invocation_api import no_such")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("invokeai.no_such")


def test_helpers_of_inner_modules(settings: Settings) -> None:
    misc = importlib.import_module("invokeai.app.util.misc")
    assert 0 <= misc.get_random_seed() <= misc.SEED_MAX
    legacy_names.use(settings)
    assert importlib.import_module("invokeai.app.services.config.config_default").get_config() is settings
    logging = importlib.import_module("invokeai.backend.util.logging")
    assert logging.InvokeAILogger.get_logger("x").name.endswith("custom_nodes.x")
    assert importlib.import_module("invokeai.version").__version__.count(".") == 2
