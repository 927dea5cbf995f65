"""Deep pages of long lists.

The day counts determine the day on which such a page begins, so that earlier entries are skipped. Skipping half a
million index entries takes 50 ms. The counts cover non-intermediate items of all boards and origins; lists with further
filters are skipped entry by entry. In lists with starred items first, those are not counted by day.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, bindparam, func, literal_column, select, union_all

from invokeclone.images.lists import filters
from invokeclone.images.media_kinds import MediaKind
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.tables import day_counts

DEEP_OFFSET = 20_000
"""Number of entries that are skipped one by one (two milliseconds). With more starred items than this, days are not
used."""

_AFTER_ALL = "\U0010ffff"
"""Sorts after any text that follows the date in a time."""


class ListPart(NamedTuple):
    """The part of a list to read: from its start, or `backwards` from its end, `skip` entries skipped and `take` read.

    With a day, only items of that day and later ones in reading order, without starred items if those come first.
    """

    backwards: bool
    skip: int
    take: int
    day: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of the statement that reads the part."""
        return {"skip": self.skip, "take": self.take} | ({} if self.day is None else {"day": self.day})


def part_from_nearer_end(total: int, offset: int, limit: int) -> ListPart:
    """Return how to read a page from the nearer end of its list, as skipping takes time."""
    remaining = max(total - offset, 0)
    if offset > remaining:
        return ListPart(backwards=True, skip=max(remaining - limit, 0), take=min(limit, remaining))
    return ListPart(backwards=False, skip=offset, take=limit)


def newest_first(image_filter: ImageFilter, *, backwards: bool) -> bool:
    """Return whether a list, read from its start (or `backwards` from its end), is in descending order of time."""
    return (image_filter.order_dir is SQLiteDirection.Descending) is not backwards


def has_day_counts(image_filter: ImageFilter) -> bool:
    """Return whether the day counts match the content of the list."""
    criteria = (image_filter.board_id, image_filter.origin, image_filter.created_date, image_filter.search_term)
    return image_filter.is_intermediate is False and not any(value is not None for value in criteria)


def conditions(image_filter: ImageFilter, kind: MediaKind, *, backwards: bool) -> list[ColumnElement[bool]]:
    """Return the conditions for the part of a list from the day `day` on; without starred items if those come first."""
    created_at, day = kind.table.c.created_at, bindparam("day", type_=Text, required=False)
    since_day = (
        created_at < day.concat(_AFTER_ALL) if newest_first(image_filter, backwards=backwards) else created_at >= day
    )
    return [kind.table.c.starred == literal_column("0"), since_day] if image_filter.starred_first else [since_day]


async def skip_to_day(
    source: Source, image_filter: ImageFilter, kinds: tuple[MediaKind, ...], part: ListPart, *, of: int, starred: int
) -> ListPart:
    """Return the part as one from a day on; `of` is the length of the list, of which `starred` items come first.

    The list must satisfy `has_day_counts`. The part is returned unchanged when its day cannot be determined.
    """
    ahead = 0 if part.backwards else starred
    reaches_starred = part.skip < ahead or (part.backwards and part.skip + part.take > of - starred)
    if starred > DEEP_OFFSET or reaches_starred:
        return part
    row = await _day_at_offset(image_filter, kinds, backwards=part.backwards).first(source, skip=part.skip - ahead)
    if row is None:
        return part
    day, before = row
    return part._replace(skip=part.skip - ahead - before, day=day)


@lru_cache(maxsize=128)
def _day_at_offset(image_filter: ImageFilter, kinds: tuple[MediaKind, ...], *, backwards: bool) -> PreparedStatement:
    """Return the statement for the last day that at most `skip` unstarred items precede, and for their number."""
    day, number = day_counts.c.created_date, day_counts.c.number
    counts = select(day.label("day"), number.label("number")).where(
        day_counts.c.kind.in_([kind.type_name for kind in kinds])
    )
    if image_filter.categories is not None:
        counts = counts.where(day_counts.c.category.in_(image_filter.categories))
    if image_filter.owner is not None:
        counts = counts.where(day_counts.c.user_id == image_filter.owner)
    ahead = [_days_of_starred(image_filter, kind) for kind in kinds] if image_filter.starred_first else []
    all_counts = union_all(counts, *ahead).subquery()
    days = select(all_counts.c.day, func.sum(all_counts.c.number).label("number")).group_by(all_counts.c.day).subquery()
    order = days.c.day.desc() if newest_first(image_filter, backwards=backwards) else days.c.day
    before = func.sum(days.c.number).over(order_by=order) - days.c.number
    cumulative = select(days.c.day, before.label("before")).subquery()
    candidates = select(cumulative).where(cumulative.c.before <= parameter("skip"))
    return PreparedStatement(candidates.order_by(cumulative.c.before.desc()).limit(literal_column("1")))


def _days_of_starred(image_filter: ImageFilter, kind: MediaKind) -> Select[Any]:
    """Select the days of starred items, each to be subtracted from the count of its day."""
    day = func.substr(kind.table.c.created_at, literal_column("1"), literal_column("10"))
    stars = kind.table.c.starred == literal_column("1")
    return select(day, literal_column("-1")).where(*filters.conditions(image_filter, kind), stars)
