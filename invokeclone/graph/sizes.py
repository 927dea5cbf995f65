"""Check of the image size in a node's fields against the limits."""

from functools import cache

from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError
from invokeclone.kit.config.limits import Limits

PAIRS = (("width", "height"), ("image_width", "image_height"))
"""Names of fields that are a width and a height, in pixels or in grid cells (of which there are fewer)."""


class SizeOverLimit(NodeError):
    """A node requests an image over the size limits."""


@cache
def _pairs(kind: type[BaseInvocation]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in PAIRS if pair[0] in kind.model_fields and pair[1] in kind.model_fields)


def check_size(node: BaseInvocation, limits: Limits) -> None:
    """Raise SizeOverLimit if the node requests more pixels, or a longer side, than the limits allow."""
    for names in _pairs(type(node)):
        width, height = (getattr(node, name) for name in names)
        if isinstance(width, int) and isinstance(height, int):
            check_pixels(width, height, limits, f"node {node.id} ({node.get_type()})")


def check_pixels(width: int, height: int, limits: Limits, subject: str) -> None:
    """Raise SizeOverLimit if an image of this size is over the limits."""
    if width * height > limits.node_pixels or max(width, height) > limits.image_side:
        message = (
            f"{subject} requests {width}×{height}, over the limit of {limits.node_pixels} pixels, {limits.image_side} a side "
            "(settings limits.node_pixels, limits.image_side)"
        )
        raise SizeOverLimit(message)
