"""Pages of a list, in the form that clients read."""

from typing import Generic, TypeVar

from pydantic import BaseModel

Item = TypeVar("Item", bound=BaseModel)


class OffsetPaginatedResults(BaseModel, Generic[Item]):  # noqa: UP046  (pydantic names the class by its Generic base)
    """One page: `items` from `offset` on, at most `limit`, out of `total`."""

    limit: int
    offset: int
    total: int
    items: list[Item]
