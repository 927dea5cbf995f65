"""SQL of webhooks and their deliveries."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
from sqlalchemy import CTE, case, delete, func, insert, literal_column, or_, select, update

from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, json_list, members, parameter
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import after, now
from invokeclone.tables import users, webhook_deliveries, webhooks
from invokeclone.webhooks.errors import WebhookNotFound
from invokeclone.webhooks.schemas import Webhook, WebhookDelivery, WebhookRequest

LISTED_DELIVERIES = 100
FAILING_PERIOD_S = 12 * 3600.0
_ALWAYS, _NEVER = "9999", ""
"""Times after and before all others."""

_hooks, _deliveries = webhooks.c, webhook_deliveries.c
_HOOK = tuple(_hooks[name] for name in Webhook.model_fields)
_DELIVERY = tuple(_deliveries[name] for name in WebhookDelivery.model_fields)
_WORKING: dict[str, Any] = {"failing_since": None, "failing_periods": literal_column("0"), "failing_period_at": None}
_IS_HOOK = _hooks.webhook_id == parameter("webhook_id")
_OF_HOOK = _deliveries.webhook_id == parameter("webhook_id")


# Webhooks

_NEW = ("webhook_id", "user_id", "url", "events", "description", "secret", "created_at")
_ADD = PreparedStatement(insert(webhooks).values({name: parameter(name) for name in _NEW}))
_LOCK_USER = PreparedStatement(
    select(users.c.user_id).where(users.c.user_id == parameter("user_id")).with_for_update(key_share=True)
)
_COUNT = PreparedStatement(select(func.count()).select_from(webhooks).where(_hooks.user_id == parameter("user_id")))
_ALL = PreparedStatement(select(*_HOOK).order_by(_hooks.created_at, _hooks.webhook_id))
_OF_USER = PreparedStatement(
    select(*_HOOK).where(_hooks.user_id == parameter("user_id")).order_by(_hooks.created_at, _hooks.webhook_id)
)
_ONE = PreparedStatement(select(*_HOOK).where(_IS_HOOK))
_SECRET = PreparedStatement(select(_hooks.secret).where(_IS_HOOK))
_DELETE = PreparedStatement(delete(webhooks).where(_IS_HOOK))
_ENABLE = PreparedStatement(update(webhooks).where(_IS_HOOK).values(**_WORKING, disabled_at=None, disabled_reason=None))


async def add(connection: Changes, user_id: str, request: WebhookRequest, secret: str) -> str:
    """Create a webhook and return its id."""
    webhook_id = str(uuid4())
    values = {"url": request.url, "events": json_list(dict.fromkeys(request.events)), "secret": secret}
    values |= {"description": request.description, "created_at": now()}
    await _ADD.rows(connection, webhook_id=webhook_id, user_id=user_id, **values)
    return webhook_id


async def count(connection: Changes, user_id: str) -> int:
    """Return the number of a user's webhooks, which no concurrent transaction increases until this one ends."""
    await _LOCK_USER.rows(connection, user_id=user_id)
    row = await _COUNT.first(connection, user_id=user_id)
    assert row
    return int(row[0])


async def list_all(source: Source, user_id: str | None) -> list[Webhook]:
    """Return the webhooks of a user, or of all users for None, the oldest first."""
    rows = await (_ALL.rows(source) if user_id is None else _OF_USER.rows(source, user_id=user_id))
    return list(map(_webhook, rows))


async def get(source: Source, webhook_id: str) -> Webhook:
    """Return a webhook. Raises WebhookNotFound."""
    row = await _ONE.first(source, webhook_id=webhook_id)
    if row is None:
        raise WebhookNotFound(webhook_id)
    return _webhook(row)


def _webhook(row: Sequence[Any]) -> Webhook:
    values = dict(zip(Webhook.model_fields, row, strict=True))
    return Webhook(**values | {"events": orjson.loads(values["events"])})


async def get_secret(source: Source, webhook_id: str) -> str:
    """Return the secret of a webhook. Raises WebhookNotFound."""
    row = await _SECRET.first(source, webhook_id=webhook_id)
    if row is None:
        raise WebhookNotFound(webhook_id)
    return str(row[0])


async def remove(connection: Changes, webhook_id: str) -> None:
    """Delete a webhook with its deliveries."""
    await _DELETE.rows(connection, webhook_id=webhook_id)


async def enable(connection: Changes, webhook_id: str) -> None:
    """Let a webhook receive events again."""
    await _ENABLE.rows(connection, webhook_id=webhook_id)


_DISABLE = PreparedStatement(
    update(webhooks)
    .where(_IS_HOOK, _hooks.disabled_at.is_(None))
    .values(disabled_at=parameter("at"), disabled_reason=parameter("reason"))
    .returning(_hooks.webhook_id)
)
_ABANDON = PreparedStatement(
    update(webhook_deliveries)
    .where(_OF_HOOK, _deliveries.due_at.is_not(None))
    .values(due_at=None, failed_at=parameter("at"), error=parameter("error"))
)


async def disable(connection: Changes, webhook_id: str, reason: str) -> bool:
    """Send nothing more to a webhook; return whether it was enabled."""
    at = now()
    disabled = await _DISABLE.first(connection, webhook_id=webhook_id, at=at, reason=reason)
    await _ABANDON.rows(connection, webhook_id=webhook_id, at=at, error="the webhook is disabled")
    return disabled is not None


_NOTE_SUCCESS = PreparedStatement(
    update(webhooks).where(_IS_HOOK, _hooks.failing_since.is_not(None)).values(**_WORKING)
)
_IS_PERIOD_OVER = or_(_hooks.failing_period_at.is_(None), _hooks.failing_period_at <= parameter("period_before"))
_IS_AHEAD = _hooks.failing_period_at > parameter("at")
"""The period began when the clock was ahead."""
_NOTE_FAILURE = PreparedStatement(
    update(webhooks)
    .where(_IS_HOOK)
    .values(
        failing_since=case(
            (_hooks.failing_since <= parameter("at"), _hooks.failing_since),
            else_=parameter("at"),
        ),
        failing_periods=_hooks.failing_periods
        + case((_IS_PERIOD_OVER, literal_column("1")), else_=literal_column("0")),
        failing_period_at=case((or_(_IS_PERIOD_OVER, _IS_AHEAD), parameter("at")), else_=_hooks.failing_period_at),
    )
    .returning(_hooks.failing_since, _hooks.failing_periods)
)


class Failing(NamedTuple):
    """Since when all attempts at a webhook have failed, and in how many periods of `FAILING_PERIOD_S`.

    The number grows only with attempts: it stays low when the clock is set forward, or the server was off for days.
    """

    since: str
    periods: int


async def note_success(connection: Changes, webhook_id: str) -> None:
    """Record that a webhook works."""
    await _NOTE_SUCCESS.rows(connection, webhook_id=webhook_id)


async def note_failure(connection: Changes, webhook_id: str) -> Failing | None:
    """Record that a webhook does not work; return None if it is deleted."""
    times = {"at": now(), "period_before": after(-FAILING_PERIOD_S)}
    row = await _NOTE_FAILURE.first(connection, webhook_id=webhook_id, **times)
    return Failing(*row) if row else None


# Deliveries


class DueDelivery(NamedTuple):
    """A delivery that can be claimed, and whose turn it is."""

    delivery_id: str
    due_at: str
    webhook_id: str
    user_id: str
    failing_since: str | None


class ClaimedDelivery(NamedTuple):
    """A delivery that this server attempts, with what it needs; `attempts` includes this one and is its fence."""

    delivery_id: str
    webhook_id: str
    event: str
    attempts: int
    failed_attempts: int
    body: str
    url: str
    secret: str


_OF_HOOK_NEWEST = PreparedStatement(
    select(*_DELIVERY)
    .where(_OF_HOOK)
    .order_by(_deliveries.created_at.desc(), _deliveries.delivery_id)
    .limit(LISTED_DELIVERIES)
)


def _pending_webhooks() -> CTE:
    """Select each webhook with unfinished deliveries once, with one index lookup per webhook, and a null at the end."""
    first, further = webhook_deliveries.alias("first").c, webhook_deliveries.alias("further").c
    lowest = select(first.webhook_id).where(first.due_at.is_not(None))
    # only the index of unfinished ones has this order
    lowest = lowest.order_by(first.webhook_id, first.due_at).limit(1)
    pending = select(lowest.scalar_subquery().label("webhook_id")).cte("pending", recursive=True)
    following = select(further.webhook_id).where(further.due_at.is_not(None), further.webhook_id > pending.c.webhook_id)
    following = following.order_by(further.webhook_id, further.due_at).limit(1).correlate(pending)
    return pending.union_all(select(following.scalar_subquery()).where(pending.c.webhook_id.is_not(None)))


def _first_due() -> PreparedStatement:
    """Select the delivery of each webhook that is due longest: its cost does not grow with the number of deliveries."""
    pending, queued = _pending_webhooks(), webhook_deliveries.alias("queued").c
    is_due = queued.due_at.is_not(None), queued.due_at <= parameter("at")
    of_webhook = select(queued.delivery_id).where(queued.webhook_id == _hooks.webhook_id, *is_due)
    first = of_webhook.order_by(queued.due_at).limit(1).correlate(webhooks).scalar_subquery()
    columns = (_deliveries[name] for name in ("delivery_id", "due_at", "webhook_id"))
    return PreparedStatement(
        select(*columns, _hooks.user_id, _hooks.failing_since)
        .select_from(pending)
        .join(webhooks, _hooks.webhook_id == pending.c.webhook_id)
        .join(users, users.c.user_id == _hooks.user_id)
        .join(webhook_deliveries, _deliveries.delivery_id == first)
        .where(
            _hooks.webhook_id.not_in(members("busy_webhooks")),
            _hooks.user_id.not_in(members("busy_users")),
            or_(_hooks.failing_since.is_(None), _hooks.failing_since < parameter("failing_before")),
            users.c.is_active == literal_column("1"),
        )
        .order_by(_deliveries.due_at, _deliveries.webhook_id)
        .limit(parameter("count"))
    )


_DUE = _first_due()
_CLAIM = PreparedStatement(
    update(webhook_deliveries)
    .where(_deliveries.delivery_id == parameter("delivery_id"), _deliveries.due_at == parameter("seen"))
    .values(due_at=parameter("lease"), attempts=_deliveries.attempts + 1)
    .returning(*(_deliveries[name] for name in ClaimedDelivery._fields if name in _deliveries))
)
_TARGET = PreparedStatement(select(_hooks.url, _hooks.secret).where(_IS_HOOK))
_RESULT = ("due_at", "delivered_at", "failed_at", "response_status", "error")
_RECORD = PreparedStatement(
    update(webhook_deliveries)
    .where(
        _deliveries.delivery_id == parameter("delivery_id"),
        _deliveries.attempts == parameter("attempt"),
        _deliveries.due_at.is_not(None),
    )
    .values({name: parameter(f"to_{name}") for name in _RESULT})
    .values(failed_attempts=_deliveries.failed_attempts + parameter("failures"))
    .returning(_deliveries.delivery_id)
)
_PENDING = PreparedStatement(
    select(func.count()).select_from(webhook_deliveries).where(_deliveries.due_at.is_not(None))
)
_PURGE = PreparedStatement(
    delete(webhook_deliveries).where(_deliveries.created_at < parameter("before"), _deliveries.due_at.is_(None))
)


_ADVANCE = PreparedStatement(
    update(webhook_deliveries).where(_deliveries.due_at > parameter("latest")).values(due_at=parameter("at"))
)


async def list_deliveries(source: Source, webhook_id: str) -> list[WebhookDelivery]:
    """Return the newest deliveries of a webhook."""
    rows = await _OF_HOOK_NEWEST.rows(source, webhook_id=webhook_id)
    return [WebhookDelivery(**dict(zip(WebhookDelivery.model_fields, row, strict=True))) for row in rows]


async def list_due(
    source: Source,
    count: int,
    *,
    busy_webhooks: Iterable[str] = (),
    busy_users: Iterable[str] = (),
    failing: bool = True,
) -> list[DueDelivery]:
    """Return the first due delivery of each webhook of active users, the longest due first; without busy webhooks and users.

    `failing` is whether those of webhooks whose last attempt failed are among them.
    """
    at = now()
    busy = {"busy_webhooks": json_list(busy_webhooks), "busy_users": json_list(busy_users)}
    rows = await _DUE.rows(source, at=at, failing_before=_ALWAYS if failing else _NEVER, count=count, **busy)
    return [DueDelivery(*row) for row in rows]


async def claim(connection: Changes, delivery_id: str, due_at: str, lease: str) -> ClaimedDelivery | None:
    """Claim a delivery until `lease`; None if another server has claimed or changed it since it was due at `due_at`."""
    row = await _CLAIM.first(connection, delivery_id=delivery_id, seen=due_at, lease=lease)
    if row is None:
        return None
    target = await _TARGET.first(connection, webhook_id=row[1])
    return ClaimedDelivery(*row, *target) if target else None


async def record(
    connection: Changes,
    delivery: ClaimedDelivery,
    *,
    failures: int = 0,
    due_at: str | None = None,
    delivered_at: str | None = None,
    failed_at: str | None = None,
    response_status: int | None = None,
    error: str | None = None,
) -> bool:
    """Record the result of an attempt, unless its lease is over and another one was made; return whether it was.

    `failures` is 1 for a failed attempt, and 0 for one that succeeded or was interrupted.
    """
    values = {"due_at": due_at, "delivered_at": delivered_at, "failed_at": failed_at}
    values |= {"response_status": response_status, "error": error}  # type: ignore[dict-item]
    parameters: dict[str, Any] = {f"to_{name}": value for name, value in values.items()} | {"failures": failures}
    row = await _RECORD.first(connection, delivery_id=delivery.delivery_id, attempt=delivery.attempts, **parameters)
    return row is not None


async def count_pending(source: Source) -> int:
    """Return the number of unfinished deliveries."""
    row = await _PENDING.first(source)
    assert row
    return int(row[0])


async def advance(connection: Changes, latest: str) -> None:
    """Attempt now what is due after `latest`: it was postponed when the clock was ahead."""
    await _ADVANCE.rows(connection, latest=latest, at=now())


async def purge(connection: Changes, before: str) -> None:
    """Delete the finished deliveries of events before a time."""
    await _PURGE.rows(connection, before=before)
