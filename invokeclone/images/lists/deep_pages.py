"""Late pages of long lists: the counts of days tell on which day such a page begins, so that what comes before is not walked.

Half a million entries of an index take 50 ms to skip. The counts are of what is no intermediate, whatever board it is on and
wherever it comes from; lists that filter by more are walked. What is starred is on no day of a list that it comes first in.
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
"""Entries that are skipped one by one: two milliseconds. With more starred ones than this their days are not looked up."""

_AFTER_ALL = "\U0010ffff"
"""Sorts after whatever may follow a date in a time."""


class ListPart(NamedTuple):
    """Which part of a list is read: from its start or `backwards` from its end, `skip` of it left out and `take` read.

    With a day, only what is of that day or comes after it in the order of reading, and nothing that is starred if that comes first.
    """

    backwards: bool
    skip: int
    take: int
    day: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of the statement that reads it."""
        return {"skip": self.skip, "take": self.take} | ({} if self.day is None else {"day": self.day})


def part_from_nearer_end(total: int, offset: int, limit: int) -> ListPart:
    """Return how to read a page, from the nearer end of its list: skipping costs."""
    remaining = max(total - offset, 0)
    if offset > remaining:
        return ListPart(backwards=True, skip=max(remaining - limit, 0), take=min(limit, remaining))
    return ListPart(backwards=False, skip=offset, take=limit)


def newest_first(image_filter: ImageFilter, *, backwards: bool) -> bool:
    """Return whether a list that is read from its start (or `backwards` from its end) comes newest first."""
    return (image_filter.order_dir is SQLiteDirection.Descending) is not backwards


def has_day_counts(image_filter: ImageFilter) -> bool:
    """Return whether the counts of days are of what is in the list."""
    criteria = (image_filter.board_id, image_filter.origin, image_filter.created_date, image_filter.search_term)
    return image_filter.is_intermediate is False and not any(value is not None for value in criteria)


def conditions(image_filter: ImageFilter, kind: MediaKind, *, backwards: bool) -> list[ColumnElement[bool]]:
    """Return what is true of the part of a list from the day `day` on; nothing of it is starred where that comes first."""
    created_at, day = kind.table.c.created_at, bindparam("day", type_=Text, required=False)
    since_day = (
        created_at < day.concat(_AFTER_ALL) if newest_first(image_filter, backwards=backwards) else created_at >= day
    )
    return [kind.table.c.starred == literal_column("0"), since_day] if image_filter.starred_first else [since_day]


async def skip_to_day(
    source: Source, image_filter: ImageFilter, kinds: tuple[MediaKind, ...], part: ListPart, *, of: int, starred: int
) -> ListPart:
    """Return the part of a list of so many things (`of`), of which `starred` come first, as one from a day on.

    The list is one that is told by days; the part is returned as it is where its day is not to be known.
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
    """Return the statement for the last day before which at most `skip` things that are not starred come, and for how many do."""
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
    """Return the select of the days of what is starred, each to be taken away from the number of its day."""
    day = func.substr(kind.table.c.created_at, literal_column("1"), literal_column("10"))
    stars = kind.table.c.starred == literal_column("1")
    return select(day, literal_column("-1")).where(*filters.conditions(image_filter, kind), stars)
