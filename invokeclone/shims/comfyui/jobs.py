"""The queue as jobs: a user's items of every origin, with ComfyUI's names for their states.

A prompt of ComfyUI's API has its prompt id as the id of its job; items of other origins, of which a batch may have
many, and retried prompts have the item's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.sql.database import Database
from invokeclone.queue.rows import RECORD, Item, columns, to_item
from invokeclone.queue.schemas import TERMINAL, Status
from invokeclone.queue.service import DEFAULT_QUEUE
from invokeclone.shims.comfyui import history, store
from invokeclone.shims.comfyui.record import PromptRecord, workflow_id
from invokeclone.shims.comfyui.translate import NAME
from invokeclone.tables import queue_counts, session_graphs
from invokeclone.users.current import User

STATUSES: Mapping[str, tuple[Status, ...]] = {
    "pending": ("pending",),
    "in_progress": ("in_progress", "waiting"),
    "completed": ("completed",),
    "failed": ("failed",),
    "cancelled": ("canceled",),
}
"""The statuses of jobs, and those of items."""
STATUS_OF: Mapping[str, str] = {status: name for name, statuses in STATUSES.items() for status in statuses}
DURATION = "execution_duration"
SORT_FIELDS = ("created_at", DURATION)
MAX_ID_DIGITS = 18
"""Digits of an item id: longer numbers are ids of no item, and SQLite cannot compare with those over 64 bits."""
_WORKFLOW_ID = func.json_extract(columns.workflow, "$.id")
_EXTRAS = (columns.retried_from_item_id, _WORKFLOW_ID)


@dataclass(frozen=True)
class JobQuery:
    """Which jobs are listed, and in which order."""

    statuses: Sequence[str]
    """Names of STATUSES."""
    workflow_id: str | None = None
    sort_by: str = "created_at"
    """One of SORT_FIELDS."""
    newest_first: bool = True
    limit: int = history.DEFAULT_LENGTH
    offset: int = 0

    @property
    def item_statuses(self) -> list[Status]:
        """The statuses of the items."""
        return [status for name in self.statuses for status in STATUSES[name]]


class JobRow(NamedTuple):
    """An item with what identifies its job and workflow."""

    item: Item
    retried_from: int | None
    workflow_id: str | None
    """Of a workflow of InvokeAI's editor."""

    @property
    def job_id(self) -> str:
        """The id of the job."""
        is_prompt = self.item.origin == NAME and self.retried_from is None
        return self.item.batch_id if is_prompt else str(self.item.item_id)


def _rows(user: User) -> Select[Any]:
    return select(*RECORD, *_EXTRAS).where(columns.queue_id == DEFAULT_QUEUE, columns.user_id == user.user_id)


def _to_row(row: Sequence[Any]) -> JobRow:
    *item, retried_from, workflow_id = row
    return JobRow(to_item(tuple(item)), retried_from, None if workflow_id is None else str(workflow_id))


async def list_jobs(database: Database, user: User, query: JobQuery) -> tuple[list[dict[str, Any]], int]:
    """Return a page of the user's jobs, and the number of all that match.

    With `workflow_id`, only the newest `store.MAX_ROWS` of them are searched.
    """
    if query.workflow_id is None:
        async with database.read() as connection:
            total = await _count(connection, user, query.item_statuses)
            rows = [_to_row(row) for row in await connection.execute(page_query(user, query))]
        return await _jobs(database, rows), total
    rows = await _rows_of_workflow(database, _selection(user, query), query.workflow_id)
    return await _jobs(database, rows[query.offset : query.offset + query.limit]), len(rows)


def page_query(user: User, query: JobQuery) -> Select[Any]:
    """Return the statement that reads the rows of a page of all jobs with the statuses."""
    return _selection(user, query).offset(query.offset).limit(query.limit)


def _selection(user: User, query: JobQuery) -> Select[Any]:
    return _rows(user).where(columns.status.in_(query.item_statuses)).order_by(*_order(query))


def _order(query: JobQuery) -> list[ColumnElement[Any]]:
    fields: list[ColumnElement[Any]] = [columns.created_at, columns.item_id]
    if query.sort_by == DURATION:
        duration = func.julianday(columns.completed_at) - func.julianday(columns.started_at)
        fields = [func.coalesce(duration, 0.0), columns.item_id]
    return [field.desc() if query.newest_first else field.asc() for field in fields]


async def _count(connection: AsyncConnection, user: User, statuses: Sequence[Status]) -> int:
    counts = queue_counts.c
    query = select(func.sum(counts.number)).where(
        counts.queue_id == DEFAULT_QUEUE,
        counts.scope == "queue",
        counts.name == "",
        counts.user_id == user.user_id,
        counts.status.in_(statuses),
    )
    return int(await connection.scalar(query) or 0)


async def _rows_of_workflow(database: Database, selected: Select[Any], searched_id: str) -> list[JobRow]:
    """Return the rows whose workflow has this id: that of InvokeAI's editor, or that in a prompt's `extra_pnginfo`."""
    in_record = orjson.dumps(orjson.dumps(searched_id).decode()).decode()[1:-1]  # JSON in a string of the graph
    template = select(session_graphs.c.template).where(session_graphs.c.graph_id == columns.graph_id).scalar_subquery()
    may_have_it = or_(
        _WORKFLOW_ID.is_not_distinct_from(searched_id),
        func.instr(columns.session, in_record) > 0,
        func.instr(func.coalesce(template, ""), in_record) > 0,
    )
    async with database.read() as connection:
        rows = [_to_row(row) for row in await connection.execute(selected.where(may_have_it).limit(store.MAX_ROWS))]
    records = await store.records(database, [row.item.item_id for row in rows if row.item.origin == NAME])
    return [row for row in rows if _workflow_id(row, records.get(row.item.item_id)) == searched_id]


def _workflow_id(row: JobRow, prompt_record: PromptRecord | None) -> str | None:
    return row.workflow_id if prompt_record is None else prompt_record.workflow_id


async def get_job(database: Database, user: User, job_id: str) -> dict[str, Any] | None:
    """Return a job with its outputs and workflow; None if the user has none of this id."""
    async with database.read() as connection:
        row = await find(connection, user, job_id)
    if row is None:
        return None
    (job,) = await _jobs(database, [row], with_details=True)
    return job


async def find(connection: AsyncConnection, user: User, job_id: str) -> JobRow | None:
    """Return the row of a job: of a prompt id the newest, of an item id that item; None if the user has none."""
    query = _rows(user).where(_has_id(job_id)).order_by(columns.item_id.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _to_row(row)


def _has_id(job_id: str) -> ColumnElement[bool]:
    if job_id.isascii() and job_id.isdigit() and len(job_id) <= MAX_ID_DIGITS:
        return columns.item_id == int(job_id)
    return (columns.batch_id == job_id) & (columns.origin == NAME)


# Jobs in ComfyUI's form


async def _jobs(database: Database, rows: Sequence[JobRow], *, with_details: bool = False) -> list[dict[str, Any]]:
    """Return the jobs of rows; null fields are left out."""
    ended = [row.item for row in rows if row.item.status in TERMINAL]
    entries = await history.entries_by_id(database, [item for item in ended if item.origin == NAME])
    foreign = [item for item in ended if item.item_id not in entries]
    async with database.read() as connection:
        texts = await store.sessions(connection, [item.item_id for item in foreign])
    entries |= await in_thread(
        lambda: {item.item_id: _entry(item, texts[item.item_id]) for item in foreign if item.item_id in texts}
    )
    active = [row.item.item_id for row in rows if row.item.origin == NAME and row.item.status not in TERMINAL]
    records = await store.records(database, active)
    return [
        _job(row, entries.get(row.item.item_id), records.get(row.item.item_id), with_details=with_details)
        for row in rows
    ]


def _entry(item: Item, text: str) -> dict[str, Any]:
    """Return an entry like those of the history for an item of another origin."""
    session = orjson.loads(text)
    sources, nodes = session["prepared_source_mapping"], session["graph"]["nodes"]
    outputs: dict[str, Any] = {}
    for prepared_id, result in session["results"].items():
        node_id = sources.get(prepared_id, prepared_id)
        image = result.get("image")
        if isinstance(image, dict) and not nodes.get(node_id, {}).get("is_intermediate", True):
            reference = {"filename": image["image_name"], "subfolder": "", "type": "output"}
            outputs.setdefault(node_id, {"images": []})["images"].append(reference)
    executed = list(dict.fromkeys(sources.get(prepared_id, prepared_id) for prepared_id in session["results"]))
    failed = next((sources.get(prepared_id, prepared_id) for prepared_id in session["errors"]), None)
    kind = nodes.get(failed, {}).get("type") if failed else None
    return {
        "prompt": [item.item_id, str(item.item_id), {}, {}, list(outputs)],
        "outputs": outputs,
        "status": history.status(item, history.FailedNode(failed, executed), kind),
    }


def _job(
    row: JobRow, entry: Mapping[str, Any] | None, prompt_record: PromptRecord | None, *, with_details: bool
) -> dict[str, Any]:
    item = row.item
    prompt: Sequence[Any] = (item.item_id, row.job_id, {}, {}, [])
    if entry is not None:
        prompt = entry["prompt"]
    elif prompt_record is not None:
        prompt = history.queue_entry(item, prompt_record)
    outputs = entry["outputs"] if entry else {}
    images = [
        {**image, "nodeId": node_id, "mediaType": "images"}
        for node_id, output in outputs.items()
        for image in output["images"]
    ]
    job = {
        "id": row.job_id,
        "status": STATUS_OF[item.status],
        "priority": item.item_id,
        "create_time": history.milliseconds(item.created_at),
        "execution_start_time": history.milliseconds(item.started_at) if item.started_at else None,
        "execution_end_time": history.milliseconds(item.completed_at) if item.completed_at else None,
        "execution_error": _error(entry),
        "outputs_count": len(images),
        "previewable_outputs_count": len(images),
        "preview_output": next((image for image in images if image["type"] == "output"), next(iter(images), None)),
        "workflow_id": row.workflow_id or workflow_id(prompt[3]),
    }
    if with_details:
        job["workflow"] = {"prompt": prompt[2], "extra_data": prompt[3]}
        if entry is not None:
            job |= {"outputs": outputs, "execution_status": entry["status"]}
    return {name: value for name, value in job.items() if value is not None}


def _error(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the data of the message that a run failed; None if it did not."""
    kind, data = entry["status"]["messages"][-1] if entry else (None, None)
    return data if kind == "execution_error" else None
