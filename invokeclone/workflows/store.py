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
from invokeclone.kit.sql.prepared import json_list, members
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


def _holds(where: ColumnElement[Any], what: ColumnElement[Any]) -> ColumnElement[bool]:
    return func.instr(func.casefold(where), func.casefold(what)) > 0


def _tagged() -> ColumnElement[bool]:
    """Match workflows one of whose tags holds one of the given texts."""
    given = func.json_each(bindparam("tags", type_=Text)).table_valued(column("value", Text), name="given")
    return exists(select(literal_column("1")).select_from(given).where(_holds(table.c.tags, given.c.value)))


def _conditions(shape: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions for filters that ask for the same things; what they ask for comes in by `_parameters`."""
    found: list[ColumnElement[bool]] = []
    if shape.viewer is not None and shape.is_public is not True:
        found.append(or_(table.c.user_id == bindparam("viewer"), table.c.category == WorkflowCategory.Default.value))
    if shape.categories is not None:
        found.append(table.c.category.in_(members("categories")))
    if shape.tags is not None:
        found.append(_tagged())
    if shape.query is not None:
        query: ColumnElement[str] = bindparam("query", type_=Text)
        found.append(or_(*[_holds(table.c[name], query) for name in ("name", "description", "tags")]))
    if shape.has_been_opened is not None:
        found.append(table.c.opened_at.is_not(None) if shape.has_been_opened else table.c.opened_at.is_(None))
    if shape.is_public is not None:
        found.append(table.c.is_public.is_(shape.is_public))
    if shape.is_callable is not None:
        ok = WorkflowCallCompatibilityReason.Ok.value
        found.append(table.c.call_reason == ok if shape.is_callable else table.c.call_reason != ok)
    return found


def _shape(wanted: Filter) -> Filter:
    """Return a filter that asks for the same things, with nothing said about which."""
    return replace(
        wanted,
        viewer=None if wanted.viewer is None else "",
        categories=None if wanted.categories is None else (),
        tags=None if wanted.tags is None else (),
        query=None if wanted.query is None else "",
    )


def _parameters(wanted: Filter) -> dict[str, Any]:
    return {
        "viewer": wanted.viewer,
        "categories": orjson.dumps(wanted.categories).decode(),
        "tags": orjson.dumps(wanted.tags).decode(),
        "query": wanted.query,
    }


@lru_cache(maxsize=SHAPES)
def _page(shape: Filter, order_by: WorkflowRecordOrderBy, direction: SQLiteDirection) -> Select[Any]:
    keys: list[ColumnElement[Any]] = [table.c[order_by.value], table.c.workflow_id]
    if direction is SQLiteDirection.Descending:
        keys = [key.desc() for key in keys]
    limit, offset = bindparam("take", type_=Integer), bindparam("skip", type_=Integer)
    return _LIST.where(*_conditions(shape)).order_by(*keys).limit(limit).offset(offset)


@lru_cache(maxsize=SHAPES)
def _counted(shape: Filter) -> Select[Any]:
    return select(func.count()).select_from(table).where(*_conditions(shape))


@lru_cache(maxsize=SHAPES)
def _by_category(shape: Filter) -> Select[Any]:
    return select(table.c.category, func.count()).where(*_conditions(shape)).group_by(table.c.category)


@lru_cache(maxsize=SHAPES)
def _by_tag(shape: Filter) -> Select[Any]:
    """Count the workflows for each text in `counted`."""
    given = func.json_each(bindparam("counted", type_=Text)).table_valued(column("value", Text), name="counted")
    count = select(func.count()).select_from(table).where(*_conditions(shape), _holds(table.c.tags, given.c.value))
    return select(given.c.value, count.correlate(given).scalar_subquery())


@lru_cache(maxsize=SHAPES)
def _all_tags(shape: Filter) -> Select[Any]:
    return select(table.c.tags).where(*_conditions(shape)).distinct()


async def page(
    connection: AsyncConnection,
    wanted: Filter,
    order_by: WorkflowRecordOrderBy,
    direction: SQLiteDirection,
    *,
    skip: int,
    take: int,
) -> list[Any]:
    """Return the rows of a page, each with the columns `LISTED`; `take` -1: all."""
    statement = _page(_shape(wanted), order_by, direction)
    rows = await connection.execute(statement, {**_parameters(wanted), "skip": skip, "take": take})
    return list(rows)


async def count(connection: AsyncConnection, wanted: Filter) -> int:
    """Count the workflows of a list."""
    return int((await connection.execute(_counted(_shape(wanted)), _parameters(wanted))).scalar_one())


async def count_by_category(connection: AsyncConnection, wanted: Filter) -> dict[str, int]:
    """Count the workflows of a list by category."""
    rows = await connection.execute(_by_category(_shape(wanted)), _parameters(wanted))
    return {row[0]: row[1] for row in rows}


async def count_by_tag(connection: AsyncConnection, wanted: Filter, tags: Sequence[str]) -> dict[str, int]:
    """Count the workflows of a list that have each of `tags`."""
    parameters = {**_parameters(wanted), "counted": json_list(dict.fromkeys(tags))}
    rows = await connection.execute(_by_tag(_shape(wanted)), parameters)
    return {row[0]: row[1] for row in rows}


async def tags(connection: AsyncConnection, wanted: Filter) -> list[str]:
    """Return every tag of a list's workflows once, sorted."""
    rows = await connection.execute(_all_tags(_shape(wanted)), _parameters(wanted))
    return sorted({tag for row in rows for tag in split_tags(row[0])})


def split_tags(text: str) -> list[str]:
    """Return the tags of a workflow, which are separated by commas."""
    return [tag for tag in (part.strip() for part in text.split(",")) if tag]


def item(row: Any) -> dict[str, Any]:
    """Return a row as clients read it in a list."""
    fields: dict[str, Any] = dict(zip(LISTED, row, strict=False))
    del fields["judged_by"]
    shown = _shown(fields)
    return {**fields, "is_published": None, **shown}


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
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
    shown = _shown(fields)
    for name in ("judged_by", "description", "category", "tags"):
        del fields[name]
    workflow = orjson.Fragment(row.workflow)
    return orjson.dumps({**fields, "is_published": None, "workflow": workflow, **(shown if whole else {})})


async def get(connection: AsyncConnection, workflow_id: str) -> Any:
    """Return a workflow's row, with the columns `LISTED` and the workflow as JSON text; raises WorkflowNotFound."""
    row = (await connection.execute(_ONE, {"wanted": workflow_id})).one_or_none()
    if row is None:
        raise WorkflowNotFound(workflow_id)
    return row


def _derived(workflow: Workflow, text: str) -> dict[str, str]:
    """Return the columns that repeat what the workflow says."""
    return {
        "name": workflow.name,
        "description": workflow.description,
        "category": workflow.meta.category.value,
        "tags": workflow.tags,
        "workflow": text,
    }


def _judged(judgement: WorkflowCallCompatibility, judged_by: str) -> dict[str, str | None]:
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
    values = {**_derived(workflow, text), **_judged(*judgement)}
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
    values: dict[str, Any] = {**_derived(workflow, text), **_judged(*judgement)}
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


async def unjudged(connection: AsyncConnection, judged_by: str, limit: int) -> list[tuple[str, str]]:
    """Return ids and texts of workflows that were judged by something else than `judged_by`, `limit` at most."""
    differs = or_(table.c.judged_by < judged_by, table.c.judged_by > judged_by)  # each half is a range of the index
    rows = await connection.execute(select(table.c.workflow_id, table.c.workflow).where(differs).limit(limit))
    return [(row[0], row[1]) for row in rows]


async def set_judgement(
    connection: AsyncConnection, workflow_id: str, text: str, judgement: WorkflowCallCompatibility, judged_by: str
) -> None:
    """Keep a judgement of the workflow that has this text still."""
    statement = update(table).where(table.c.workflow_id == workflow_id, table.c.workflow == text)
    await connection.execute(statement.values(**_judged(judgement, judged_by)))


async def defaults(connection: AsyncConnection) -> dict[str, tuple[str, str | None]]:
    """Return the texts of the workflows that came with the application and the marks of their pictures, by id."""
    is_default = table.c.category == WorkflowCategory.Default.value
    rows = await connection.execute(select(table.c.workflow_id, table.c.workflow, table.c.thumbnail).where(is_default))
    return {row[0]: (row[1], row[2]) for row in rows}
