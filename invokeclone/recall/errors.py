"""Errors of recall requests."""

from invokeclone.kit.errors import BadRequest


class StrictOrAppend(BadRequest):
    """A recall cannot both reset all parameters and add to the existing ones."""
