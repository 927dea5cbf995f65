"""Nodes that output a literal value."""

from typing import Any

from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, node

INT64_MAX = 2**63 - 1


def register_value_node(name: str, title: str, node_input: NodeInput) -> None:
    """Register a node that outputs the value of its input."""

    @node(name, title, "utils/primitive", {"value": node_input}, node_input.type)
    def build(context: BuildContext, *, value: Any) -> tuple[Any]:  # noqa: ARG001
        """Output a value."""
        return (value,)


register_value_node("PrimitiveInt", "Int", NodeInput("INT", 0, -INT64_MAX, INT64_MAX))
register_value_node("PrimitiveFloat", "Float", NodeInput("FLOAT", 0.0, -float(INT64_MAX), float(INT64_MAX)))
register_value_node("PrimitiveString", "String", NodeInput("STRING", ""))
register_value_node("PrimitiveStringMultiline", "String (Multiline)", NodeInput("STRING", "", multiline=True))
register_value_node("PrimitiveBoolean", "Boolean", NodeInput("BOOLEAN", default=False))
