"""Workflows in SQL; it knows no files and decides nothing about rights. Lists leave as JSON bytes, made from the rows.

No list reads a workflow itself: what lists show and filter by stands in columns of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Integer,
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
_ID = table.c.workflow_id == bindparam("wanted")
_ONE = select(*[table.c[name] for name in LISTED], table.c.workflow).where(_ID)
SHAPES = 128
"""How many kinds of lists are kept as statements."""


@dataclass(frozen=True)
class Filter:
    """Which workflows a list holds; None: no matter. `viewer` sees those of their own and the default ones; None: all."""

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
    """Match workflows one of whose tags holds one of the given texts."""
    tag_values = func.json_each(bindparam("tags", type_=Text)).table_valued(column("value", Text), name="given")
    return exists(
        select(literal_column("1")).select_from(tag_values).where(_contains(table.c.tags, tag_values.c.value))
    )


def _conditions(shape: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions for filters that ask for the same things; what they ask for comes in by `_parameters`."""
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
        conditions.append(table.c.is_public.is_(shape.is_public))
    if shape.is_callable is not None:
        ok = WorkflowCallCompatibilityReason.Ok.value
        conditions.append(table.c.call_reason == ok if shape.is_callable else table.c.call_reason != ok)
    return conditions


def _shape(criteria: Filter) -> Filter:
    """Return a filter that asks for the same things, with nothing said about which."""
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
    limit, offset = bindparam("take", type_=Integer), bindparam("skip", type_=Integer)
    return _LIST.where(*_conditions(shape)).order_by(*keys).limit(limit).offset(offset)


@lru_cache(maxsize=SHAPES)
def _count(shape: Filter) -> Select[Any]:
    return select(func.count()).select_from(table).where(*_conditions(shape))


@lru_cache(maxsize=SHAPES)
def _by_category(shape: Filter) -> Select[Any]:
    return select(table.c.category, func.count()).where(*_conditions(shape)).group_by(table.c.category)


@lru_cache(maxsize=SHAPES)
def _by_tag(shape: Filter) -> Select[Any]:
    """Count the workflows for each text in `counted`."""
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
    """Return the rows of a page, each with the columns `LISTED`; `take` -1: all."""
    statement = _page(_shape(criteria), order_by, direction)
    rows = await connection.execute(statement, {**_parameters(criteria), "skip": skip, "take": take})
    return list(rows)


async def count(connection: AsyncConnection, criteria: Filter) -> int:
    """Count the workflows of a list."""
    return int((await connection.execute(_count(_shape(criteria)), _parameters(criteria))).scalar_one())


async def count_by_category(connection: AsyncConnection, criteria: Filter) -> dict[str, int]:
    """Count the workflows of a list by category."""
    rows = await connection.execute(_by_category(_shape(criteria)), _parameters(criteria))
    return {row[0]: row[1] for row in rows}


async def count_by_tag(connection: AsyncConnection, criteria: Filter, tags: Sequence[str]) -> dict[str, int]:
    """Count the workflows of a list that have each of `tags`."""
    parameters = {**_parameters(criteria), "counted": json_list(dict.fromkeys(tags))}
    rows = await connection.execute(_by_tag(_shape(criteria)), parameters)
    return {row[0]: row[1] for row in rows}


async def tags(connection: AsyncConnection, criteria: Filter) -> list[str]:
    """Return every tag of a list's workflows once, sorted."""
    rows = await connection.execute(_all_tags(_shape(criteria)), _parameters(criteria))
    return sorted({tag for row in rows for tag in split_tags(row[0])})


def split_tags(text: str) -> list[str]:
    """Return the tags of a workflow, which are separated by commas."""
    return [tag for tag in (part.strip() for part in text.split(",")) if tag]


def item(row: Any) -> dict[str, Any]:
    """Return a row as clients read it in a list."""
    fields: dict[str, Any] = dict(zip(LISTED, row, strict=False))
    del fields["judged_by"]
    client_fields = _client_fields(fields)
    return {**fields, "is_published": None, **client_fields}


def _client_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn the columns of picture and judgement into what clients read of them."""
    mark, reason = fields.pop("thumbnail"), fields.pop("call_reason")
    message = fields.pop("call_message")
    address = f"api/v1/workflows/i/{fields['workflow_id']}/thumbnail?{mark}" if mark else None
    is_callable = reason == WorkflowCallCompatibilityReason.Ok.value
    return {
        "thumbnail_url": address,
        "call_saved_workflow_compatibility": {"is_callable": is_callable, "reason": reason, "message": message},
    }


def record(row: Any, *, whole: bool) -> bytes:
    """Return a row of `get` as the JSON of `WorkflowRecordDTO`; `whole`: as `WorkflowRecordWithThumbnailDTO`."""
    fields: dict[str, Any] = dict(zip(LISTED, row, strict=False))
    client_fields = _client_fields(fields)
    for name in ("judged_by", "description", "category", "tags"):
        del fields[name]
    workflow = orjson.Fragment(row.workflow)
    return orjson.dumps({**fields, "is_published": None, "workflow": workflow, **(client_fields if whole else {})})


async def get(connection: AsyncConnection, workflow_id: str) -> Any:
    """Return a workflow's row, with the columns `LISTED` and the workflow as JSON text; raises WorkflowNotFound."""
    row = (await connection.execute(_ONE, {"wanted": workflow_id})).one_or_none()
    if row is None:
        raise WorkflowNotFound(workflow_id)
    return row


def _workflow_columns(workflow: Workflow, text: str) -> dict[str, str]:
    """Return the columns that repeat what the workflow says."""
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
    """Put in a workflow, whose JSON is `text`, under its id; `judgement` comes with what it depends on."""
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
    """Replace the workflow of this id by one whose JSON is `text`, and say who reads it unless `is_public` is None."""
    values: dict[str, Any] = {**_workflow_columns(workflow, text), **_judgement_columns(*judgement)}
    if is_public is not None:
        values["is_public"] = is_public
    await connection.execute(update(table).where(table.c.workflow_id == workflow.id).values(**values, updated_at=now()))


async def set_opened(connection: AsyncConnection, workflow_id: str) -> None:
    """Note that the workflow was opened now; that is no change of it."""
    await connection.execute(update(table).where(table.c.workflow_id == workflow_id).values(opened_at=now()))


async def set_thumbnail(connection: AsyncConnection, workflow_id: str, mark: str | None) -> None:
    """Note that the workflow has another picture, or none."""
    await connection.execute(update(table).where(table.c.workflow_id == workflow_id).values(thumbnail=mark))


async def delete_workflow(connection: AsyncConnection, workflow_id: str) -> None:
    """Delete a workflow, if there is one."""
    await connection.execute(delete(table).where(table.c.workflow_id == workflow_id))


async def find_unjudged(connection: AsyncConnection, judged_by: str, limit: int) -> list[tuple[str, str]]:
    """Return ids and texts of workflows that were judged by something else than `judged_by`, `limit` at most."""
    differs = or_(table.c.judged_by < judged_by, table.c.judged_by > judged_by)  # each half is a range of the index
    rows = await connection.execute(select(table.c.workflow_id, table.c.workflow).where(differs).limit(limit))
    return [(row[0], row[1]) for row in rows]


async def set_judgement(
    connection: AsyncConnection, workflow_id: str, text: str, judgement: WorkflowCallCompatibility, judged_by: str
) -> None:
    """Keep a judgement of the workflow that has this text still."""
    statement = update(table).where(table.c.workflow_id == workflow_id, table.c.workflow == text)
    await connection.execute(statement.values(**_judgement_columns(judgement, judged_by)))


async def defaults(connection: AsyncConnection) -> dict[str, tuple[str, str | None]]:
    """Return the texts of the workflows that came with the application and the marks of their pictures, by id."""
    is_default = table.c.category == WorkflowCategory.Default.value
    rows = await connection.execute(select(table.c.workflow_id, table.c.workflow, table.c.thumbnail).where(is_default))
    return {row[0]: (row[1], row[2]) for row in rows}
