"""SQL of the workflow library. Does not check permissions.

Lists do not read the workflows themselves: the fields that lists show and filter by are columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.sql.prepared_statements import json_list, members
from invokeclone.kit.sql.types import ALL_ROWS, RowCount
from invokeclone.kit.times import now
from invokeclone.tables import workflows as table
from invokeclone.workflows.errors import WorkflowNotFound
from invokeclone.workflows.schemas import (
    Workflow,
    WorkflowCallCompatibility,
    WorkflowCallCompatibilityReason,
    WorkflowCategory,
    WorkflowRecordOrderBy,
)

LISTED = (
    "workflow_id",
    "name",
    "created_at",
    "updated_at",
    "opened_at",
    "user_id",
    "is_public",
    "description",
    "category",
    "tags",
    "thumbnail",
    "call_reason",
    "call_message",
    "judged_by",
)
_LIST = select(*[table.c[name] for name in LISTED])
_ID = table.c.workflow_id == bindparam("workflow_id")
_ONE = select(*[table.c[name] for name in LISTED], table.c.workflow).where(_ID)
SHAPES = 128
"""Number of cached statements per kind of query."""


@dataclass(frozen=True)
class Filter:
    """Filter of workflows; None: any. A `viewer` sees own and default workflows, with `is_public` all shared ones."""

    viewer: str | None = None
    categories: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    query: str | None = None
    has_been_opened: bool | None = None
    is_public: bool | None = None
    is_callable: bool | None = None


def _contains(text: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[bool]:
    return func.instr(func.casefold(text), func.casefold(part)) > 0


def _matches_tags() -> ColumnElement[bool]:
    """Match workflows with a tag that contains one of the texts in parameter `tags`."""
    tag_values = func.json_each(bindparam("tags", type_=Text)).table_valued(column("value", Text), name="given")
    return exists(
        select(literal_column("1")).select_from(tag_values).where(_contains(table.c.tags, tag_values.c.value))
    )


def _conditions(shape: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions of filters of this shape; `_parameters` supplies the values."""
    conditions: list[ColumnElement[bool]] = []
    if shape.viewer is not None and shape.is_public is not True:
        conditions.append(
            or_(table.c.user_id == bindparam("viewer"), table.c.category == WorkflowCategory.Default.value)
        )
    if shape.categories is not None:
        conditions.append(table.c.category.in_(members("categories")))
    if shape.tags is not None:
        conditions.append(_matches_tags())
    if shape.query is not None:
        query: ColumnElement[str] = bindparam("query", type_=Text)
        conditions.append(or_(*[_contains(table.c[name], query) for name in ("name", "description", "tags")]))
    if shape.has_been_opened is not None:
        conditions.append(table.c.opened_at.is_not(None) if shape.has_been_opened else table.c.opened_at.is_(None))
    if shape.is_public is not None:
        conditions.append(table.c.is_public == literal_column("1" if shape.is_public else "0"))
    if shape.is_callable is not None:
        ok = WorkflowCallCompatibilityReason.Ok.value
        conditions.append(table.c.call_reason == ok if shape.is_callable else table.c.call_reason != ok)
    return conditions


def _shape(criteria: Filter) -> Filter:
    """Return the filter with its values blanked, as the cache key of statements."""
    return replace(
        criteria,
        viewer=None if criteria.viewer is None else "",
        categories=None if criteria.categories is None else (),
        tags=None if criteria.tags is None else (),
        query=None if criteria.query is None else "",
    )


def _parameters(criteria: Filter) -> dict[str, Any]:
    return {
        "viewer": criteria.viewer,
        "categories": orjson.dumps(criteria.categories).decode(),
        "tags": orjson.dumps(criteria.tags).decode(),
        "query": criteria.query,
    }


@lru_cache(maxsize=SHAPES)
def _page(shape: Filter, order_by: WorkflowRecordOrderBy, direction: SQLiteDirection) -> Select[Any]:
    keys: list[ColumnElement[Any]] = [table.c[order_by.value], table.c.workflow_id]
    if direction is SQLiteDirection.Descending:
        keys = [key.desc() for key in keys]
    if table.c[order_by.value].nullable:  # in SQLite null is the lowest value, in PostgreSQL the highest
        keys[0] = keys[0].nulls_last() if direction is SQLiteDirection.Descending else keys[0].nulls_first()
    limit, offset = bindparam("take", type_=RowCount), bindparam("skip", type_=RowCount)
    return _LIST.where(*_conditions(shape)).order_by(*keys).limit(limit).offset(offset)


@lru_cache(maxsize=SHAPES)
def _count(shape: Filter) -> Select[Any]:
    return select(func.count()).select_from(table).where(*_conditions(shape))


@lru_cache(maxsize=SHAPES)
def _by_category(shape: Filter) -> Select[Any]:
    return select(table.c.category, func.count()).where(*_conditions(shape)).group_by(table.c.category)


@lru_cache(maxsize=SHAPES)
def _by_tag(shape: Filter) -> Select[Any]:
    """Count the workflows with a tag that contains each text in parameter `counted`."""
    tag_values = func.json_each(bindparam("counted", type_=Text)).table_valued(column("value", Text), name="counted")
    count = (
        select(func.count()).select_from(table).where(*_conditions(shape), _contains(table.c.tags, tag_values.c.value))
    )
    return select(tag_values.c.value, count.correlate(tag_values).scalar_subquery())


@lru_cache(maxsize=SHAPES)
def _all_tags(shape: Filter) -> Select[Any]:
    return select(table.c.tags).where(*_conditions(shape)).distinct()


async def page(
    connection: AsyncConnection,
    criteria: Filter,
    order_by: WorkflowRecordOrderBy,
    direction: SQLiteDirection,
    *,
    skip: int,
    take: int,
) -> list[Any]:
    """Return the rows of a page with the columns LISTED; `take` -1: all rows."""
    statement = _page(_shape(criteria), order_by, direction)
    rows = await connection.execute(
        statement, {**_parameters(criteria), "skip": skip, "take": take if take >= 0 else ALL_ROWS}
    )
    return list(rows)


async def count(connection: AsyncConnection, criteria: Filter) -> int:
    """Count the workflows that match a filter."""
    return int((await connection.execute(_count(_shape(criteria)), _parameters(criteria))).scalar_one())


async def count_by_category(connection: AsyncConnection, criteria: Filter) -> dict[str, int]:
    """Count the workflows that match a filter by category."""
    rows = await connection.execute(_by_category(_shape(criteria)), _parameters(criteria))
    return {row[0]: row[1] for row in rows}


async def count_by_tag(connection: AsyncConnection, criteria: Filter, tags: Sequence[str]) -> dict[str, int]:
    """Count the workflows that match a filter by each of `tags`."""
    parameters = {**_parameters(criteria), "counted": json_list(dict.fromkeys(tags))}
    rows = await connection.execute(_by_tag(_shape(criteria)), parameters)
    return {row[0]: row[1] for row in rows}


async def tags(connection: AsyncConnection, criteria: Filter) -> list[str]:
    """Return the unique tags of the workflows that match a filter, sorted."""
    rows = await connection.execute(_all_tags(_shape(criteria)), _parameters(criteria))
    return sorted({tag for row in rows for tag in split_tags(row[0])})


def split_tags(text: str) -> list[str]:
    """Return the tags in a text, separated by commas."""
    return [tag for tag in (part.strip() for part in text.split(",")) if tag]


def item(row: Any) -> dict[str, Any]:
    """Return a row as an item of a list response."""
    fields: dict[str, Any] = dict(zip(LISTED, row, strict=False))
    del fields["judged_by"]
    client_fields = _client_fields(fields)
    return {**fields, "is_published": None, **client_fields}


def _client_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert the columns of thumbnail and compatibility to fields of the response."""
    mark, reason = fields.pop("thumbnail"), fields.pop("call_reason")
    message = fields.pop("call_message")
    address = f"api/v1/workflows/i/{fields['workflow_id']}/thumbnail?{mark}" if mark else None
    is_callable = reason == WorkflowCallCompatibilityReason.Ok.value
    return {
        "thumbnail_url": address,
        "call_saved_workflow_compatibility": {"is_callable": is_callable, "reason": reason, "message": message},
    }


def record(row: Any, *, whole: bool) -> bytes:
    """Return a row of `get` as JSON of WorkflowRecordDTO, or with `whole` of WorkflowRecordWithThumbnailDTO."""
    fields: dict[str, Any] = dict(zip(LISTED, row, strict=False))
    client_fields = _client_fields(fields)
    for name in ("judged_by", "description", "category", "tags"):
        del fields[name]
    workflow = orjson.Fragment(row.workflow)
    return orjson.dumps({**fields, "is_published": None, "workflow": workflow, **(client_fields if whole else {})})


async def get(connection: AsyncConnection, workflow_id: str) -> Any:
    """Return a row with the columns LISTED and the workflow as JSON text. Raises WorkflowNotFound."""
    row = (await connection.execute(_ONE, {"workflow_id": workflow_id})).one_or_none()
    if row is None:
        raise WorkflowNotFound(workflow_id)
    return row


def _workflow_columns(workflow: Workflow, text: str) -> dict[str, str]:
    """Return the columns derived from the workflow."""
    return {
        "name": workflow.name,
        "description": workflow.description,
        "category": workflow.meta.category.value,
        "tags": workflow.tags,
        "workflow": text,
    }


def _judgement_columns(judgement: WorkflowCallCompatibility, judged_by: str) -> dict[str, str | None]:
    return {"call_reason": judgement.reason.value, "call_message": judgement.message, "judged_by": judged_by}


async def create(
    connection: AsyncConnection,
    workflow: Workflow,
    text: str,
    judgement: tuple[WorkflowCallCompatibility, str],
    *,
    user_id: str,
    is_public: bool,
) -> None:
    """Insert a workflow; `text` is its JSON, `judgement` its compatibility and fingerprint."""
    moment = now()
    values = {**_workflow_columns(workflow, text), **_judgement_columns(*judgement)}
    values |= {"user_id": user_id, "created_at": moment, "updated_at": moment}
    await connection.execute(insert(table).values(workflow_id=workflow.id, is_public=is_public, **values))


async def change(
    connection: AsyncConnection,
    workflow: Workflow,
    text: str,
    judgement: tuple[WorkflowCallCompatibility, str],
    *,
    is_public: bool | None = None,
) -> None:
    """Replace a workflow; `text` is its JSON. Sharing is not changed if `is_public` is None."""
    values: dict[str, Any] = {**_workflow_columns(workflow, text), **_judgement_columns(*judgement)}
    if is_public is not None:
        values["is_public"] = is_public
    await connection.execute(update(table).where(table.c.workflow_id == workflow.id).values(**values, updated_at=now()))


async def set_opened(connection: AsyncConnection, workflow_id: str) -> None:
    """Set `opened_at` to now, without changing `updated_at`."""
    await connection.execute(update(table).where(table.c.workflow_id == workflow_id).values(opened_at=now()))


async def with_thumbnail(connection: AsyncConnection, workflow_ids: Sequence[str]) -> set[str]:
    """Return those of `workflow_ids` that have a thumbnail."""
    statement = select(table.c.workflow_id).where(table.c.workflow_id.in_(workflow_ids), table.c.thumbnail.is_not(None))
    return set(await connection.scalars(statement))


async def set_thumbnail(connection: AsyncConnection, workflow_id: str, mark: str | None) -> None:
    """Set the version of the workflow's thumbnail, or None if it has none."""
    await connection.execute(update(table).where(table.c.workflow_id == workflow_id).values(thumbnail=mark))


async def delete_workflow(connection: AsyncConnection, workflow_id: str) -> None:
    """Delete a workflow, if it exists."""
    await connection.execute(delete(table).where(table.c.workflow_id == workflow_id))


async def find_unjudged(connection: AsyncConnection, judged_by: str, limit: int) -> list[tuple[str, str]]:
    """Return ids and JSON texts of at most `limit` workflows whose fingerprint is not `judged_by`."""
    differs = or_(table.c.judged_by < judged_by, table.c.judged_by > judged_by)  # two range scans of the index
    rows = await connection.execute(select(table.c.workflow_id, table.c.workflow).where(differs).limit(limit))
    return [(row[0], row[1]) for row in rows]


async def set_judgement(
    connection: AsyncConnection, workflow_id: str, text: str, judgement: WorkflowCallCompatibility, judged_by: str
) -> None:
    """Save the compatibility of a workflow, unless its text has changed since."""
    statement = update(table).where(table.c.workflow_id == workflow_id, table.c.workflow == text)
    await connection.execute(statement.values(**_judgement_columns(judgement, judged_by)))


async def defaults(connection: AsyncConnection) -> dict[str, tuple[str, str | None]]:
    """Return the JSON text and the thumbnail version of each default workflow by id."""
    is_default = table.c.category == WorkflowCategory.Default.value
    rows = await connection.execute(select(table.c.workflow_id, table.c.workflow, table.c.thumbnail).where(is_default))
    return {row[0]: (row[1], row[2]) for row in rows}
