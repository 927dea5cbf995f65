"""SQL for virtual boards: one board per day with images or videos, with counts maintained by triggers.

The content of such a board is a gallery list filtered by day.
"""

from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, ScalarSelect, Select, bindparam, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.boards.schemas import VirtualSubBoardDTO
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.tables import day_counts

_PER_STAR = [(kind, starred) for kind in (IMAGES, VIDEOS) for starred in ("1", "0")]
"""The indexes begin with `starred`: the newest item of a day is the newer of the newest starred and unstarred ones."""


def _number(*conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(day_counts.c.number).filter(*conditions), 0)


def _newest(kind: MediaKind, starred: str, *, by_owner: bool) -> ScalarSelect[Any]:
    """Select a day's newest item of a kind, as JSON: its time, tiebreaker and name."""
    created_at = kind.table.c.created_at
    day = day_counts.c.created_date
    statement = select(func.json_array(created_at, kind.tiebreaker, kind.name)).where(
        kind.table.c.is_intermediate == literal_column("0"),
        kind.table.c.starred == literal_column(starred),
        created_at.between(day.concat(" "), day.concat("!")),
    )
    if by_owner:
        statement = statement.where(kind.user_id == bindparam("owner"), kind.is_user_owned)
    return (
        statement.order_by(created_at.desc(), kind.tiebreaker.desc()).limit(1).correlate(day_counts).scalar_subquery()
    )


@lru_cache(maxsize=2)
def by_date(*, by_owner: bool) -> Select[Any]:
    """Return the statement that lists the days, the newest first, over all items or those of the user `owner`."""
    images, videos = (day_counts.c.kind == kind.type_name for kind in (IMAGES, VIDEOS))
    general = day_counts.c.category == ImageCategory.GENERAL.value
    covers = [
        _newest(kind, starred, by_owner=by_owner).label(f"newest_{index}")
        for index, (kind, starred) in enumerate(_PER_STAR)
    ]
    statement = select(
        day_counts.c.created_date,
        _number(images, general).label("image_count"),
        _number(images, ~general).label("asset_count"),
        _number(videos).label("video_count"),
        *covers,
    ).where(day_counts.c.number > 0)
    if by_owner:
        statement = statement.where(day_counts.c.user_id == bindparam("owner"))
    return statement.group_by(day_counts.c.created_date).order_by(day_counts.c.created_date.desc())


async def list_by_date(connection: AsyncConnection, owner: str | None) -> list[VirtualSubBoardDTO]:
    """Return a board per UTC day with non-intermediate items; with an owner, counting only their items."""
    rows = await connection.execute(by_date(by_owner=owner is not None), {"owner": owner} if owner else {})
    return [_board(row) for row in rows]


def _board(row: Any) -> VirtualSubBoardDTO:
    newest = [orjson.loads(cover or "[]") for cover in row[-len(_PER_STAR) :]]
    newest_index = max(range(len(newest)), key=newest.__getitem__)
    kind = _PER_STAR[newest_index][0]
    date, name = row.created_date, newest[newest_index][-1] if newest[newest_index] else None
    return VirtualSubBoardDTO(
        virtual_board_id=f"by_date:{date}",
        board_name=date,
        date=date,
        image_count=row.image_count,
        asset_count=row.asset_count,
        video_count=row.video_count,
        cover_image_name=name if kind is IMAGES else None,
        cover_video_name=name if kind is VIDEOS else None,
    )
