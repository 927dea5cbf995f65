"""Errors of requests about boards; the statuses are those of InvokeAI's API."""

from invokeclone.images.errors import BoardNotFound as BoardNotFound
from invokeclone.images.errors import ImageNotFound as ImageNotFound
from invokeclone.images.errors import ImageNotYours as ImageNotYours
from invokeclone.kit.errors import BadRequest


class MissingPage(BadRequest):
    """The request asks neither for all boards nor for a page."""

    def __init__(self) -> None:
        super().__init__("set all=true, or offset and limit, neither below 0")
