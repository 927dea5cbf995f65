"""Factory for node classes that differ only in names and types."""

import types
from collections.abc import Callable, Mapping
from typing import Any

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation

Invoke = Callable[[Any, InvocationContext], BaseInvocationOutput]


def make_node(
    name: str,
    node_type: str,
    description: str,
    fields: Mapping[str, tuple[Any, Any]],
    invoke: Invoke,
    output: type[BaseInvocationOutput],
    *,
    module: str,
    mixins: tuple[type, ...] = (),
    **declaration: Any,
) -> type[BaseInvocation]:
    """Return a registered node class `name`; `fields` maps field names to (annotation, InputField).

    `invoke` receives the node and the context and returns an `output`; `declaration` holds the other arguments of the
    `invocation` decorator.
    """

    def run(self: Any, context: InvocationContext) -> BaseInvocationOutput:
        return invoke(self, context)

    run.__annotations__["return"] = output
    run.__doc__ = description
    body = {
        "__module__": module,
        "__qualname__": name,
        "__doc__": description,
        "__annotations__": {field: annotation for field, (annotation, _) in fields.items()},
        **{field: declared for field, (_, declared) in fields.items()},
        "invoke": run,
    }
    node_class: type[BaseInvocation] = types.new_class(
        name, (BaseInvocation, *mixins), exec_body=lambda names: names.update(body)
    )
    return invocation(node_type, **declaration)(node_class)
