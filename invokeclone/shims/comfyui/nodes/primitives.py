"""Nodes that are nothing but a value."""

from typing import Any

from invokeclone.shims.comfyui.vocabulary import Input, Place, node

FAR = 2**63 - 1


def value_node(name: str, title: str, given: Input) -> None:
    """Register a node whose output is its value."""

    @node(name, title, "utils/primitive", {"value": given}, given.type)
    def draw(place: Place, *, value: Any) -> tuple[Any]:  # noqa: ARG001
        """Give out a value."""
        return (value,)


value_node("PrimitiveInt", "Int", Input("INT", 0, -FAR, FAR))
value_node("PrimitiveFloat", "Float", Input("FLOAT", 0.0, -float(FAR), float(FAR)))
value_node("PrimitiveString", "String", Input("STRING", ""))
value_node("PrimitiveStringMultiline", "String (Multiline)", Input("STRING", "", multiline=True))
value_node("PrimitiveBoolean", "Boolean", Input("BOOLEAN", default=False))
