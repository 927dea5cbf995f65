"""Nodes that are nothing but a value."""

from typing import Any

from invokeclone.shims.comfyui.vocabulary import BuildContext, NodeInput, node

FAR = 2**63 - 1


def value_node(name: str, title: str, given: NodeInput) -> None:
    """Register a node whose output is its value."""

    @node(name, title, "utils/primitive", {"value": given}, given.type)
    def draw(place: BuildContext, *, value: Any) -> tuple[Any]:  # noqa: ARG001
        """Give out a value."""
        return (value,)


value_node("PrimitiveInt", "Int", NodeInput("INT", 0, -FAR, FAR))
value_node("PrimitiveFloat", "Float", NodeInput("FLOAT", 0.0, -float(FAR), float(FAR)))
value_node("PrimitiveString", "String", NodeInput("STRING", ""))
value_node("PrimitiveStringMultiline", "String (Multiline)", NodeInput("STRING", "", multiline=True))
value_node("PrimitiveBoolean", "Boolean", NodeInput("BOOLEAN", default=False))
