"""What a recall can be refused for."""

from invokeclone.kit.errors import BadRequest


class StrictOrAppend(BadRequest):
    """A recall can't both reset everything and add to what is there."""
