"""Late pages of long lists: the counts of days tell on which day such a page begins, so that what comes before is not walked.

Half a million entries of an index take 50 ms to skip. The counts are of what is no intermediate, whatever board it is on and
wherever it comes from; lists that filter by more are walked. What is starred is on no day of a list that it comes first in.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, bindparam, func, literal_column, select, union_all

from invokeclone.images.kinds import MediaKind
from invokeclone.images.lists import filters
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.sql.prepared import Prepared, Source, parameter
from invokeclone.tables import day_counts

FAR = 20_000
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


def nearer(total: int, offset: int, limit: int) -> ListPart:
    """Return how to read a page, from the nearer end of its list: skipping costs."""
    left = max(total - offset, 0)
    if offset > left:
        return ListPart(backwards=True, skip=max(left - limit, 0), take=min(limit, left))
    return ListPart(backwards=False, skip=offset, take=limit)


def newest_first(wanted: ImageFilter, *, backwards: bool) -> bool:
    """Return whether a list that is read from its start (or `backwards` from its end) comes newest first."""
    return (wanted.order_dir is SQLiteDirection.Descending) is not backwards


def told_by_days(wanted: ImageFilter) -> bool:
    """Return whether the counts of days are of what is in the list."""
    filtered = (wanted.board_id, wanted.origin, wanted.created_date, wanted.search_term)
    return wanted.is_intermediate is False and not any(one is not None for one in filtered)


def conditions(wanted: ImageFilter, kind: MediaKind, *, backwards: bool) -> list[ColumnElement[bool]]:
    """Return what is true of the part of a list from the day `day` on; nothing of it is starred where that comes first."""
    made, day = kind.table.c.created_at, bindparam("day", type_=Text, required=False)
    reached = made < day.concat(_AFTER_ALL) if newest_first(wanted, backwards=backwards) else made >= day
    return [kind.table.c.starred == literal_column("0"), reached] if wanted.starred_first else [reached]


async def from_day(
    source: Source, wanted: ImageFilter, kinds: tuple[MediaKind, ...], part: ListPart, *, of: int, starred: int
) -> ListPart:
    """Return the part of a list of so many things (`of`), of which `starred` come first, as one from a day on.

    The list is one that is told by days; the part is returned as it is where its day is not to be known.
    """
    ahead = 0 if part.backwards else starred
    reaches_starred = part.skip < ahead or (part.backwards and part.skip + part.take > of - starred)
    if starred > FAR or reaches_starred:
        return part
    found = await _reached(wanted, kinds, backwards=part.backwards).first(source, skip=part.skip - ahead)
    if found is None:
        return part
    day, before = found
    return part._replace(skip=part.skip - ahead - before, day=day)


@lru_cache(maxsize=128)
def _reached(wanted: ImageFilter, kinds: tuple[MediaKind, ...], *, backwards: bool) -> Prepared:
    """Return the statement for the last day before which at most `skip` things that are not starred come, and for how many do."""
    day, number = day_counts.c.created_date, day_counts.c.number
    made = select(day.label("day"), number.label("number")).where(day_counts.c.kind.in_([kind.word for kind in kinds]))
    if wanted.categories is not None:
        made = made.where(day_counts.c.category.in_(wanted.categories))
    if wanted.owner is not None:
        made = made.where(day_counts.c.user_id == wanted.owner)
    ahead = [_starred(wanted, kind) for kind in kinds] if wanted.starred_first else []
    every = union_all(made, *ahead).subquery()
    days = select(every.c.day, func.sum(every.c.number).label("number")).group_by(every.c.day).subquery()
    order = days.c.day.desc() if newest_first(wanted, backwards=backwards) else days.c.day
    before = func.sum(days.c.number).over(order_by=order) - days.c.number
    walked = select(days.c.day, before.label("before")).subquery()
    reached = select(walked).where(walked.c.before <= parameter("skip"))
    return Prepared(reached.order_by(walked.c.before.desc()).limit(literal_column("1")))


def _starred(wanted: ImageFilter, kind: MediaKind) -> Select[Any]:
    """Return the select of the days of what is starred, each to be taken away from the number of its day."""
    day = func.substr(kind.table.c.created_at, literal_column("1"), literal_column("10"))
    stars = kind.table.c.starred == literal_column("1")
    return select(day, literal_column("-1")).where(*filters.conditions(wanted, kind), stars)
