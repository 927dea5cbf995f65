"""Conversion of queue rows to JSON text for clients, and to records for our code.

Sessions and workflows are JSON text in the row and are not parsed. Items are redacted for users who do not own them
(`viewer` is given and is not the owner): only id, status, device and times remain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, literal_column, null, or_, select

from invokeclone.kit.sql.prepared_statements import parameter
from invokeclone.queue.schemas import Status
from invokeclone.queue.sessions import STORED, TEMPLATE, DamagedSession, assemble_session, new_session, readable_session
from invokeclone.tables import session_queue, users

columns = session_queue.c
FIELD_VALUES = func.json(columns.field_values).label("field_values")

HEAD: tuple[ColumnElement[Any], ...] = (
    columns.item_id,
    columns.status,
    columns.status_sequence,
    columns.priority,
    columns.batch_id,
    columns.origin,
    columns.destination,
    columns.session_id,
    columns.error_type,
    columns.error_message,
    columns.error_traceback,
    columns.created_at,
    columns.updated_at,
    columns.started_at,
    columns.completed_at,
    columns.queue_id,
    columns.user_id,
    users.c.display_name.label("user_display_name"),
    users.c.email.label("user_email"),
    FIELD_VALUES,
    columns.retried_from_item_id,
    columns.device,
    columns.workflow_call_id,
    columns.parent_item_id,
    columns.parent_session_id,
    columns.root_item_id,
    columns.workflow_call_depth,
)
"""Every field of an item except session and workflow, in the order of the response."""

SUMMARY: tuple[ColumnElement[Any], ...] = (
    columns.item_id,
    columns.created_at,
    columns.status,
    columns.device,
    columns.started_at,
    columns.completed_at,
    columns.origin,
    columns.destination,
    columns.batch_id,
    columns.user_id,
    users.c.display_name.label("user_display_name"),
    users.c.email.label("user_email"),
    FIELD_VALUES,
    columns.parent_item_id,
)


REDACTED = "redacted"
PUBLIC_FIELDS = {
    "item_id",
    "status",
    "status_sequence",
    "created_at",
    "updated_at",
    "started_at",
    "completed_at",
    "queue_id",
    "device",
}
"""Fields of an item that are not redacted."""
REQUIRED_TEXTS = {"batch_id", "session_id", "user_id"}
"""Redacted fields that must not be null."""
REDACTED_SESSION = new_session(REDACTED, f'{{"id":"{REDACTED}","nodes":{{}},"edges":[]}}')


def has_status(item: Any, status: Status) -> ColumnElement[bool]:
    """Match items (columns of the table or an alias) in a status, a literal so that SQLite can use a partial index."""
    return item.status == literal_column(f"'{status}'")  # type: ignore[no-any-return]


VISIBLE = or_(parameter("viewer").is_(None), columns.user_id == parameter("viewer"))


def _hidden(key: str) -> ColumnElement[Any]:
    if key == "priority":
        return literal_column("0")
    return literal_column(f"'{REDACTED}'") if key in REQUIRED_TEXTS else null()


def _json_object(selected: Sequence[ColumnElement[Any]]) -> ColumnElement[str]:
    """Select the columns as a JSON object, redacted if the viewer is not the owner."""
    full: list[ColumnElement[Any]] = []
    redacted: list[ColumnElement[Any]] = []
    for column in selected:
        key: ColumnElement[Any] = literal_column(f"'{column.key}'")
        value = getattr(column, "element", column)
        full += [key, value]
        redacted += [key, value if column.key in PUBLIC_FIELDS else _hidden(str(column.key))]
    return case((VISIBLE, func.json_object(*full)), else_=func.json_object(*redacted))


_OWNED = session_queue.outerjoin(users, users.c.user_id == columns.user_id)
_TEXTS = (
    columns.session_id,
    case((VISIBLE, columns.session), else_=literal(REDACTED_SESSION)),
    case((VISIBLE, TEMPLATE), else_=null()),
    columns.graph_values,
    case((VISIBLE, columns.workflow), else_=null()),
)

ITEMS: Select[Any] = select(_json_object(HEAD), *_TEXTS).select_from(_OWNED)
"""Selects the columns for `item_json`."""

ITEMS_WITHOUT_NULLS: Select[Any] = select(func.json_without_nulls(_json_object(HEAD)), *_TEXTS).select_from(_OWNED)
"""The same, without null fields."""

SUMMARIES: Select[Any] = select(_json_object(SUMMARY)).select_from(_OWNED)
"""Selects summaries of items as JSON text."""


def item_json(row: tuple[Any, ...], *, nulls: bool = True) -> str:
    """Return the JSON text of an item from a row of ITEMS (or of ITEMS_WITHOUT_NULLS if `nulls` is false)."""
    head, *stored, workflow = row
    tail = f',"workflow":{workflow}' if workflow else ',"workflow":null' if nulls else ""
    return f'{head[:-1]},"session":{readable_session(*stored)}{tail}}}'


@dataclass(frozen=True, slots=True)
class Item:
    """A queue row without session and workflow, as needed for events."""

    item_id: int
    queue_id: str
    batch_id: str
    session_id: str
    status: Status
    status_sequence: int
    priority: int
    origin: str | None
    destination: str | None
    user_id: str
    device: str | None
    error_type: str | None
    error_message: str | None
    error_traceback: str | None
    created_at: str
    updated_at: str
    started_at: str | None
    completed_at: str | None
    in_call: bool = field(default=False, kw_only=True)
    """Whether the item was made by a workflow call or made one; its end then affects other items."""

    @property
    def error(self) -> tuple[str | None, str | None, str | None]:
        """Class, message and traceback of its error."""
        return self.error_type, self.error_message, self.error_traceback

    @property
    def log_fields(self) -> dict[str, Any]:
        """Extra fields of log lines about the item."""
        return {"item_id": self.item_id, "batch_id": self.batch_id, "user_id": self.user_id}


@dataclass(frozen=True, slots=True)
class ClaimedItem(Item):
    """An item just claimed by a worker, with its session and workflow as JSON text."""

    session: str
    workflow: str | None
    field_values: str | None
    retried_from_item_id: int | None
    fence: int = field(default=0, kw_only=True)
    """Number of the claim; a result is stored only with the fence of the latest claim."""


_IN_CALL: ColumnElement[Any] = literal_column(
    # coalesce, because in RETURNING of an UPDATE SQLite 3.40 evaluates IS NOT NULL as true for a null.
    "(coalesce(session_queue.parent_item_id, 0) <> 0 OR EXISTS "
    "(SELECT 1 FROM session_queue AS called WHERE called.parent_item_id = session_queue.item_id))"
)


def _columns_of(kind: type[Item]) -> tuple[ColumnElement[Any], ...]:
    return tuple(columns[attribute.name] for attribute in fields(kind) if attribute.name not in ("in_call", "session"))


RECORD: tuple[ColumnElement[Any], ...] = (*_columns_of(Item), _IN_CALL)
CLAIMED: tuple[ColumnElement[Any], ...] = (*_columns_of(ClaimedItem), *STORED)


def to_item(row: tuple[Any, ...]) -> Item:
    """Return the record of a row of RECORD."""
    *stored, in_call = row
    return Item(*stored, in_call=bool(in_call))


def to_claimed_item(row: tuple[Any, ...]) -> ClaimedItem:
    """Return the claimed item of a row of CLAIMED; one whose session is damaged has an empty one, so that it fails."""
    *stored, session_id, session, template, values = row
    names = [attribute.name for attribute in fields(ClaimedItem) if attribute.name not in ("in_call", "session")]
    arguments = dict(zip(names, stored, strict=True))
    try:
        text = assemble_session(session_id, session, template, values)
    except DamagedSession:
        text = ""
    return ClaimedItem(**arguments, session=text)
