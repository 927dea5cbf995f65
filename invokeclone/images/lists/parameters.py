"""What every list of images, of videos and of both is asked with: query parameters, read into a filter of what the user may see."""

from typing import Annotated

from fastapi import Depends, Query

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import access
from invokeclone.images.lists import search
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.requests import Reads
from invokeclone.users.current import CurrentUser

MAX_OFFSET = 2**63 - 1

Origin = Annotated[ResourceOrigin | None, Query(description="Only what was made here, or only what was uploaded.")]
Categories = Annotated[list[ImageCategory] | None, Query(description="Only these categories.")]
Intermediate = Annotated[bool | None, Query(description="Only intermediates, or only what is none.")]
BoardId = Annotated[str | None, Query(description='Only what is on this board; "none" for what is on no board.')]
Order = Annotated[SQLiteDirection, Query(description="Newest first (DESC) or oldest first (ASC).")]
StarredFirst = Annotated[bool, Query(description="Whether what is starred comes before all else.")]
SearchTerm = Annotated[str | None, Query(max_length=4000, description="Only what holds this in its metadata or time.")]
Limit = Annotated[int, Query(ge=0, le=1000, description="How many to list.")]


async def _offset(offset: Annotated[int, Query(ge=0, description="How many to skip.")] = 0) -> int:
    return min(offset, MAX_OFFSET)


Offset = Annotated[int, Depends(_offset)]
"""How many to skip; no list is so long that SQLite could not count it."""


async def _list_filter(
    source: Reads,
    user: CurrentUser,
    categories: Categories = None,
    is_intermediate: Intermediate = None,
    board_id: BoardId = None,
    order_dir: Order = SQLiteDirection.Descending,
    starred_first: StarredFirst = True,
    search_term: SearchTerm = None,
) -> ImageFilter:
    image_filter = ImageFilter(
        owner=await access.list_owner(source, user, board_id),
        categories=None if categories is None else tuple(categories),
        is_intermediate=is_intermediate,
        board_id=board_id,
        order_dir=order_dir,
        starred_first=starred_first,
        search_term=search_term,
    )
    return await search.with_text_query(source, image_filter)


ListFilter = Annotated[ImageFilter, Depends(_list_filter)]
"""The filter that the parameters say, bound to what the user may see; raises BoardNotFound, NotYourBoard."""
