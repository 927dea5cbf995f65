"""Pages of a list and sort direction, as published in the API."""

from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import BaseModel

from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import Unprocessable

Item = TypeVar("Item", bound=BaseModel)


class OffsetPaginatedResults(BaseModel, Generic[Item]):
    """One page: `items` from `offset` on, at most `limit`, out of `total`."""

    limit: int
    offset: int
    total: int
    items: list[Item]


class PaginatedResults(BaseModel, Generic[Item]):
    """One page by its number, counted from 0: `items`, `per_page` at most, on one of `pages` pages, out of `total`."""

    page: int
    pages: int
    per_page: int
    total: int
    items: list[Item]


def check_page(size: int, limits: Limits, param: str) -> None:
    """Raise Unprocessable for a page size over the limit."""
    if size > limits.page_items:
        raise Unprocessable(f"{param} is {size}, more than {limits.page_items} (setting limits.page_items)")


class SQLiteDirection(StrEnum):
    """Sort direction."""

    Ascending = "ASC"
    Descending = "DESC"
