"""Emits and logs events of batches and items."""

import logging
from collections.abc import Iterable
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources

FIELDS = ("queue_id", "batch_id", "item_id", "user_id", "status", "enqueued")
"""Event fields that are added to log lines."""

_log = log.get("queue")


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
