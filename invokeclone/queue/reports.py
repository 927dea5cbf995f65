"""Emits and logs events of batches and items."""

import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.outcomes import read_stored
from invokeclone.kit.sql.transactions import Changes, CommitUnknown
from invokeclone.queue import store
from invokeclone.queue.rows import Item

FIELDS = ("queue_id", "batch_id", "item_id", "user_id", "status", "enqueued")
"""Event fields that are added to log lines."""

_log = log.get("queue")


async def change_items(
    resources: Resources, work: Callable[[Changes], Coroutine[Any, Any, tuple[list[Item], list[Event]]]]
) -> list[Item]:
    """Run an exclusive transaction that returns changed items and their events; report the events, return the items.

    If the answer to its COMMIT is lost, the first item shows whether the changes are stored. Raises CommitUnknown, also
    if no item was changed: then nothing shows it.
    """
    try:
        items, events = await resources.database.transact(work)
    except CommitUnknown as unknown:
        items, events = unknown.result
        if not items or await list_stored(resources, [items[0].item_id]) != items[:1]:
            raise
    report(resources, events)
    return items


async def list_stored(resources: Resources, item_ids: Sequence[int]) -> list[Item]:
    """Return those of the items that the database has after a lost answer to a COMMIT; none if it cannot be reached."""
    return await read_stored(resources.database, lambda connection: store.list_items(connection, item_ids)) or []


def report(resources: Resources, events: Iterable[Event]) -> None:
    """Emit and log `events`, after the commit: failed items at level info, others at level debug."""
    for event in events:
        failed = getattr(event, "status", None) == "failed"
        level = logging.INFO if failed else logging.DEBUG
        if _log.isEnabledFor(level):
            _log.log(level, *_log_arguments(event), extra=_fields(event))
        resources.events.emit(event)


def _log_arguments(event: Event) -> tuple[Any, ...]:
    values = vars(event)
    if "status" in values:
        reason = f": {values['error_type']}: {values['error_message']}" if values.get("error_type") else ""
        return "item %s is %s%s", values["item_id"], values["status"], reason
    return ("%s", event.name.replace("_", " "))


def _fields(event: Event) -> dict[str, Any]:
    values = vars(event)
    return {"action": event.name, **{name: values[name] for name in FIELDS if values.get(name) is not None}}
