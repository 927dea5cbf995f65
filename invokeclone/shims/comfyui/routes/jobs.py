"""Routes of jobs: the queue items of every origin, in ComfyUI's newer form."""

from typing import Any

from fastapi import Request, Response

from invokeclone.kit.errors import NotFound
from invokeclone.kit.requests import Needs
from invokeclone.kit.resources import Resources
from invokeclone.queue import service
from invokeclone.queue.schemas import TERMINAL
from invokeclone.shims.comfyui import history, jobs, store
from invokeclone.shims.comfyui.jobs import SORT_FIELDS, STATUSES, JobQuery
from invokeclone.shims.comfyui.routes.routing import api_routes, query_number
from invokeclone.shims.compat_api import RequestRejected, json_response, read_object
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

ORDERS = ("desc", "asc")


class JobNotFound(NotFound):
    """The user has no job of this id."""


@api_routes.get("/jobs")
async def list_jobs(request: Request, user: Caller, needs: Needs) -> Response:
    """List the caller's jobs: `status`, `workflow_id`, `sort_by`, `sort_order`, `limit` (100), `offset`."""
    query = _read_query(request)
    page, total = await jobs.list_jobs(needs.database, user, query)
    pagination = {
        "offset": query.offset,
        "limit": query.limit,
        "total": total,
        "has_more": query.offset + len(page) < total,
    }
    return json_response({"jobs": page, "pagination": pagination})


def _read_query(request: Request) -> JobQuery:
    parameters = request.query_params
    statuses = [name.strip().lower() for name in parameters.get("status", "").split(",") if name.strip()]
    for name in statuses:
        _check_choice("status", name, tuple(STATUSES))
    sort_by, order = parameters.get("sort_by", SORT_FIELDS[0]).lower(), parameters.get("sort_order", ORDERS[0]).lower()
    _check_choice("sort_by", sort_by, SORT_FIELDS)
    _check_choice("sort_order", order, ORDERS)
    limit = query_number(request, "limit")
    if limit is not None and limit <= 0:
        raise RequestRejected("must be a positive integer", "limit")
    return JobQuery(
        list(dict.fromkeys(statuses)) or list(STATUSES),
        parameters.get("workflow_id") or None,
        sort_by,
        newest_first=order == ORDERS[0],
        limit=history.DEFAULT_LENGTH if limit is None else min(limit, store.MAX_ROWS),
        offset=max(0, query_number(request, "offset") or 0),
    )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestRejected(f"{value[:100]!r} is not one of {', '.join(choices)}", name)


@api_routes.get("/jobs/{prompt_id}")
async def get_job(user: Caller, needs: Needs, prompt_id: str) -> Response:
    """Get one job, with its outputs and its workflow."""
    job = await jobs.get_job(needs.database, user, prompt_id)
    if job is None:
        raise JobNotFound(f"there is no job {prompt_id!r}")
    return json_response(job)


@api_routes.post("/jobs/cancel")
async def cancel_jobs(request: Request, needs: Needs, user: Caller) -> Response:
    """Cancel those of the jobs `job_ids` that have not ended."""
    ids: Any = (await read_object(request)).get("job_ids")
    limit = needs.settings.limits.names
    if not isinstance(ids, list) or len(ids) > limit or not all(isinstance(job_id, str) for job_id in ids):
        raise RequestRejected(f"must be a list of at most {limit} job ids (setting limits.names)", "job_ids")
    canceled = [await _cancel(needs, user, job_id) for job_id in ids]
    return json_response({"cancelled": any(canceled)})


@api_routes.post("/jobs/{prompt_id}/cancel")
async def cancel_job(needs: Needs, user: Caller, prompt_id: str) -> Response:
    """Cancel a job; does nothing to one that has ended or does not exist."""
    return json_response({"cancelled": await _cancel(needs, user, prompt_id)})


async def _cancel(resources: Resources, user: User, job_id: str) -> bool:
    """Cancel a job that has not ended; return whether there was one."""
    async with resources.database.read() as connection:
        row = await jobs.find(connection, user, job_id)
    if row is None or row.item.status in TERMINAL:
        return False
    try:
        await service.cancel(resources, service.DEFAULT_QUEUE, row.item.item_id, user=user)
    except NotFound:  # deleted in the meantime
        return False
    return True
