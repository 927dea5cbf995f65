"""What can be wrong with a request about boards; the statuses are those clients know."""

from invokeclone.images.errors import BoardNotFound as BoardNotFound
from invokeclone.images.errors import ImageNotFound as ImageNotFound
from invokeclone.images.errors import ImageNotYours as ImageNotYours
from invokeclone.kit.errors import BadRequest


class MissingPage(BadRequest):
    """Neither all boards were asked for nor a page of them."""

    def __init__(self) -> None:
        super().__init__("ask for all=true, or give offset and limit, neither below 0")
