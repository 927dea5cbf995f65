"""Registry of node and output classes by type.

The decorators in `invocation` register classes when their module is imported: by `discover`, or later from a node pack.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic_core import SchemaValidator, core_schema

from invokeclone.graph.invocations import discovery, unsupported_nodes

if TYPE_CHECKING:
    from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput

_nodes: "dict[str, type[BaseInvocation]]" = {}
_outputs: "dict[str, type[BaseInvocationOutput]]" = {}
_allowed: frozenset[str] | None = None
_denied: frozenset[str] = frozenset()
_validators: dict[str, SchemaValidator] = {}
_usable: "dict[str, dict[str, type[BaseInvocation]]]" = {}


def nodes() -> "dict[str, type[BaseInvocation]]":
    """Return every enabled node class by type."""
    return {name: cls for name, cls in _nodes.items() if _may_be_used(name)}


def nodes_in_use() -> "dict[str, type[BaseInvocation]]":
    """Return the same as `nodes`, cached until the registry changes; callers must not modify it."""
    if "nodes" not in _usable:
        _usable["nodes"] = nodes()
    return _usable["nodes"]


def outputs() -> "dict[str, type[BaseInvocationOutput]]":
    """Return every output class by type."""
    return dict(_outputs)


def get(node_type: str) -> "type[BaseInvocation]":
    """Return the class of a node type. Raises KeyError if there is none or it is disabled."""
    if not _may_be_used(node_type):
        raise KeyError(node_type)
    return _nodes[node_type]


def remedy(node_type: str) -> str:
    """Return advice on how to get an unavailable node type, or what to use instead."""
    if node_type in _nodes:
        return "It is disabled by the settings allow_nodes or deny_nodes."
    if (missing := unsupported_nodes.remedy(node_type)) is not None:
        return missing
    kind = node_type.partition("_")[0]
    similar = [name for name in nodes_in_use() if name.partition("_")[0] == kind] if "_" in node_type else []
    similar += [name for name in difflib.get_close_matches(node_type[:100], nodes_in_use(), 3) if name not in similar]
    alternatives = f", or use {', '.join(sorted(similar)[:5])} instead" if similar else ""
    return f"Install the node pack that it belongs to{alternatives}."


def restrict(allow_nodes: Iterable[str] | None = None, deny_nodes: Iterable[str] | None = None) -> None:
    """Enable only some node types (settings `allow_nodes`, `deny_nodes`); None removes a restriction."""
    global _allowed, _denied  # noqa: PLW0603 - the registry is one per process
    _allowed = None if allow_nodes is None else frozenset(allow_nodes)
    _denied = frozenset(deny_nodes or ())
    _invalidate_caches()


def register_node(node_type: str, cls: "type[BaseInvocation]") -> None:
    """Add a node class. Raises ValueError if another class already has the type."""
    _check_free(node_type, cls, _nodes.get(node_type))
    _nodes[node_type] = cls
    _invalidate_caches()


def register_output(output_type: str, cls: "type[BaseInvocationOutput]") -> None:
    """Add an output class. Raises ValueError if another class already has the type."""
    _check_free(output_type, cls, _outputs.get(output_type))
    _outputs[output_type] = cls
    _invalidate_caches()


def forget_pack(package: str) -> list[str]:
    """Remove all nodes and outputs of a top-level package; return the removed node types."""
    removed = [name for name, cls in _nodes.items() if _package(cls) == package]
    for name in removed:
        del _nodes[name]
    for name in [name for name, cls in _outputs.items() if _package(cls) == package]:
        del _outputs[name]
    _invalidate_caches()
    return removed


def discover() -> None:
    """Import every module of built-in nodes and outputs: of `invokeclone.nodes`, of families and of components."""
    importlib.import_module("invokeclone.graph.session.control")
    for part in ("fields", "nodes"):
        for package in discovery.modules(part):
            _import_inside(package)
    nodes_package = importlib.import_module("invokeclone.nodes")
    for package_info in pkgutil.iter_modules(nodes_package.__path__):
        _import_inside(importlib.import_module(f"{nodes_package.__name__}.{package_info.name}"))


def _import_inside(package: ModuleType) -> None:
    """Import the modules of a package, but not its subpackages, which nodes import only when they run."""
    for info in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not info.ispkg:
            importlib.import_module(f"{package.__name__}.{info.name}")


def node_validator() -> SchemaValidator:
    """Return a validator for nodes of any type, discriminated by `type`; built on first use after a change."""
    if "nodes" not in _validators:
        _validators["nodes"] = _union_validator(nodes())
    return _validators["nodes"]


def output_validator() -> SchemaValidator:
    """Return a validator for outputs of any type, discriminated by `type`; built on first use after a change."""
    if "outputs" not in _validators:
        _validators["outputs"] = _union_validator(_outputs)
    return _validators["outputs"]


def _invalidate_caches() -> None:
    _validators.clear()
    _usable.clear()


def _may_be_used(node_type: str) -> bool:
    return (_allowed is None or node_type in _allowed) and node_type not in _denied


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _check_free(name: str, cls: type, present: type | None) -> None:
    """Raise ValueError if another class has the type; a reload of the same class may register again."""
    if present is None or (present.__module__, present.__qualname__) == (cls.__module__, cls.__qualname__):
        return
    message = f"the type {name!r} is already registered by {present.__module__}.{present.__qualname__}"
    raise ValueError(message)


def _union_validator(classes: dict[str, Any]) -> SchemaValidator:
    """Return a union discriminated by `type` whose members are compiled on first use.

    Errors of a member's validation keep their location: (…, type, field).
    """
    choices = {name: core_schema.no_info_plain_validator_function(cls.model_validate) for name, cls in classes.items()}
    return SchemaValidator(core_schema.tagged_union_schema(choices, discriminator="type"))  # type: ignore[arg-type]
