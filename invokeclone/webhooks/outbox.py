"""Writes deliveries in the transaction of their event: none is lost, and none is sent for an event that did not happen."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import ColumnElement, insert, literal_column, select

from invokeclone.kit.sql.functions import ByDatabase
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import now
from invokeclone.tables import users, webhook_deliveries, webhooks
from invokeclone.webhooks.schemas import WebhookEvent

Subscriptions = dict[str, list[str]]
"""The ids of the webhooks that receive an event, by its name."""

_RECEIVERS = (
    select(webhooks.c.webhook_id, webhooks.c.events)
    .join(users, users.c.user_id == webhooks.c.user_id)
    .where(webhooks.c.disabled_at.is_(None), users.c.is_active == literal_column("1"))
    .order_by(webhooks.c.webhook_id)
)
_OF_USER = PreparedStatement(_RECEIVERS.where(webhooks.c.user_id == parameter("user_id")))
_ANY = PreparedStatement(select(webhooks.c.webhook_id).where(webhooks.c.disabled_at.is_(None)).limit(1))


def _of_row(aggregate: str) -> ColumnElement[Any]:
    """Select the webhooks of the owner of a row of `session_queue`."""
    return literal_column(  # as text, because SQLAlchemy omits table names in RETURNING
        f"(SELECT {aggregate} FROM webhooks JOIN users ON users.user_id = webhooks.user_id"  # noqa: S608  (only our own names)
        " WHERE webhooks.user_id = session_queue.user_id AND webhooks.disabled_at IS NULL AND users.is_active = 1)"
    )


SUBSCRIPTIONS = ByDatabase(
    sqlite=_of_row("json_group_array(json_array(webhook_id, events))"),
    postgresql=_of_row("CAST(json_agg(json_build_array(webhook_id, events)) AS text)"),
)
"""Selects, with a row of `session_queue`, the text for `read_subscriptions`."""
_ADDED = ("delivery_id", "webhook_id", "event", "created_at", "due_at", "body")
_ADD = PreparedStatement(insert(webhook_deliveries).values({name: parameter(name) for name in _ADDED}))


async def has_any(source: Source) -> bool:
    """Return whether there are any webhooks."""
    return await _ANY.first(source) is not None


def read_subscriptions(text: str | None) -> Subscriptions:
    """Return webhooks by event from the text that SUBSCRIPTIONS selects."""
    return _by_event(sorted(orjson.loads(text))) if text else {}


async def list_subscriptions(source: Source, user_id: str) -> Subscriptions:
    """Return the webhooks of an active user by event."""
    return _by_event(await _OF_USER.rows(source, user_id=user_id))


def _by_event(rows: Iterable[tuple[Any, ...]]) -> Subscriptions:
    subscriptions: Subscriptions = {}
    for webhook_id, events in rows:
        for event in orjson.loads(events):
            subscriptions.setdefault(event, []).append(webhook_id)
    return subscriptions


async def add(connection: Changes, webhook_ids: Iterable[str], event: WebhookEvent, data: Mapping[str, Any]) -> None:
    """Add a delivery of an event for each of the webhooks."""
    at, body = now(), write_body(event, data)
    for webhook_id in webhook_ids:
        values = {"webhook_id": webhook_id, "event": event, "created_at": at, "due_at": at, "body": body}
        await _ADD.rows(connection, delivery_id=new_id(), **values)


def new_id() -> str:
    """Return a new id of a delivery."""
    return f"msg_{uuid4().hex}"


def write_body(event: str, data: Mapping[str, Any]) -> str:
    """Return the JSON text of an event."""
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": event, "timestamp": timestamp, "data": data}, ensure_ascii=False, separators=(",", ":"))
