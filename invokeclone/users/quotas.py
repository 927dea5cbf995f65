"""Quotas: how many pending items a user may have, and after how many images of a day further items are refused.

The settings have the defaults; `user_quotas` has exceptions. Defaults do not apply to administrators, and thus not to
the `system` user of single-user mode; an exception applies to whoever it was made for.

Pending items of all queues count, as clients choose the names of queues. Images and videos of the current day (UTC) are
counted without intermediates and uploads; those are recognized by their origin, as users change categories. What pending
items will produce is not counted, and deleted images do not count any more.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import orjson
from sqlalchemy import ColumnElement, delete, func, insert, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import TooMany
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import now
from invokeclone.tables import images, session_queue, user_quotas, users, videos
from invokeclone.users.schemas import QuotaDTO, QuotaState
from invokeclone.users.store import SYSTEM_ID, UserNotFound

QuotaName = Literal["pending_items", "images_per_day"]
QUOTAS: tuple[QuotaName, ...] = get_args(QuotaName)


class PendingQuotaReached(TooMany):
    """The user has no quota left for the items."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "30"}

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"you may have at most {limit} pending items; wait until some have run, or enqueue fewer at a time"
        )


class DailyQuotaReached(TooMany):
    """The user has generated the images of this day."""

    def __init__(self, limit: int, at: datetime) -> None:
        super().__init__(f"you may generate at most {limit} images per day; the next day begins at 00:00 UTC")
        midnight = (at + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        seconds = int((midnight - at).total_seconds()) + 1
        self.headers = {"Retry-After": str(seconds)}  # type: ignore[misc]  # for this response only


class Allowance(NamedTuple):
    """How many further items a user may enqueue, and the quota that this follows from."""

    items: int
    quota: int


_EXCEPTIONS = select(func.json_group_array(func.json_array(user_quotas.c.name, user_quotas.c.value)))
OF_USER = (
    select(users.c.is_admin).where(users.c.user_id == parameter("user_id")).scalar_subquery(),
    _EXCEPTIONS.where(user_quotas.c.user_id == parameter("user_id")).scalar_subquery(),
)
"""Selects what the quotas of the user `user_id` follow from: see `allowance`."""
_READ = PreparedStatement(select(*OF_USER))
_PENDING = PreparedStatement(
    select(func.count())
    .select_from(session_queue)
    .where(
        session_queue.c.status == literal_column("'pending'"),  # a literal so that SQLite can use a partial index
        session_queue.c.user_id == parameter("user_id"),
    )
)


def _count_of_day(*, accounts: bool) -> PreparedStatement:
    """Return the statement that counts a user's results since `date`; the indexes by user are those of accounts."""
    counts = []
    for table, origin in ((images, images.c.image_origin), (videos, videos.c.video_origin)):
        conditions: list[ColumnElement[bool]] = [
            table.c.user_id == parameter("user_id"),
            table.c.is_intermediate == literal_column("0"),
            table.c.created_at >= parameter("date"),
            origin == literal_column("'internal'"),
        ]
        if accounts:
            conditions += [table.c.user_id != literal_column("'system'")]
            conditions += [table.c.starred.in_([literal_column("0"), literal_column("1")])]
        counts.append(select(func.count()).select_from(table).where(*conditions).scalar_subquery())
    return PreparedStatement(select(counts[0] + counts[1]))


_OF_ACCOUNT, _OF_SYSTEM = _count_of_day(accounts=True), _count_of_day(accounts=False)


async def allowance(
    connection: Changes, settings: Settings, user_id: str, of_user: Sequence[Any] | None = None
) -> Allowance | None:
    """Return how many items a user may enqueue in this exclusive transaction; None: any number.

    The columns OF_USER are read unless they are given. Raises DailyQuotaReached.
    """
    if of_user is None:
        (of_user,) = await _READ.rows(connection, user_id=user_id)
    limits = _limits(settings, *of_user)
    daily, pending = limits["images_per_day"].limit, limits["pending_items"].limit
    if daily is not None and await _measure(connection, "images_per_day", user_id) >= daily:
        raise DailyQuotaReached(daily, datetime.now(UTC))
    if pending is None:
        return None
    return Allowance(max(pending - await _measure(connection, "pending_items", user_id), 0), pending)


async def get(source: Source, settings: Settings, user_id: str) -> QuotaDTO:
    """Return a user's quotas and what is used of them. Raises UserNotFound."""
    row = await _READ.first(source, user_id=user_id)
    if row is None or row[0] is None:
        raise UserNotFound(user_id)
    states = {
        name: state.model_copy(update={"used": await _measure(source, name, user_id)})
        for name, state in _limits(settings, *row).items()
    }
    return QuotaDTO(user_id=user_id, **states)


async def change(connection: AsyncConnection, user_id: str, values: dict[str, int | None]) -> None:
    """Set quotas of a user instead of the defaults; None: no limit. Raises UserNotFound."""
    row = await _READ.first(connection, user_id=user_id)
    if row is None or row[0] is None:
        raise UserNotFound(user_id)
    await reset(connection, user_id, tuple(values))
    for name, value in values.items():
        await connection.execute(insert(user_quotas).values(user_id=user_id, name=name, value=value))


async def reset(connection: AsyncConnection, user_id: str, names: tuple[str, ...] = QUOTAS) -> None:
    """Let the defaults apply to a user again."""
    of_user = user_quotas.c.user_id == user_id
    await connection.execute(delete(user_quotas).where(of_user, user_quotas.c.name.in_(names)))


def _limits(settings: Settings, is_admin: int | None, exceptions_json: str) -> dict[QuotaName, QuotaState]:
    """Return the limits that follow from the columns OF_USER; a deleted user (null) is no administrator."""
    defaults: dict[QuotaName, int | None] = {
        "pending_items": settings.max_pending_items_per_user,
        "images_per_day": settings.max_images_per_user_per_day,
    }
    exceptions: dict[str, int | None] = dict(orjson.loads(exceptions_json))
    return {
        name: QuotaState(
            limit=exceptions.get(name, None if is_admin else default),
            is_default=name not in exceptions,
        )
        for name, default in defaults.items()
    }


async def _measure(source: Source, name: QuotaName, user_id: str) -> int:
    if name == "pending_items":
        row = await _PENDING.first(source, user_id=user_id)
    else:
        statement = _OF_SYSTEM if user_id == SYSTEM_ID else _OF_ACCOUNT
        row = await statement.first(source, user_id=user_id, date=now()[:10])
    assert row
    return int(row[0])
