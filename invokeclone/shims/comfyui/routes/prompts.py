"""Routes of prompts: validate and enqueue, queue, history, interrupt."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.errors import NotFound
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.requests import RUNNING_WORKERS, Needs, Read
from invokeclone.kit.resources import Resources
from invokeclone.queue import service
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.schemas import TERMINAL
from invokeclone.shims.comfyui import catalog, history, store
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.routes.routing import MAX_ID_LENGTH, query_number, routes
from invokeclone.shims.comfyui.sockets import Clients, clients_of
from invokeclone.shims.comfyui.translate import NAME, translate
from invokeclone.shims.comfyui.workflow import WorkflowRejected
from invokeclone.shims.compat_api import RequestRejected, Warnings, json_response, read_object
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
"""Credentials for other services that ComfyUI's own frontend sends; they are not stored."""
NeedsClients = Annotated[Clients, Depends(clients_of)]


@routes.get("/prompt")
async def get_prompt(user: Caller, connection: Read) -> Response:
    """Get the number of the caller's prompts that have not ended."""
    remaining = await store.count_active(connection, user.user_id)
    return json_response({"exec_info": {"queue_remaining": remaining}})


@routes.post("/prompt", dependencies=[RUNNING_WORKERS])
async def post_prompt(request: Request, needs: Needs, user: Caller, clients: NeedsClients) -> Response:
    """Validate a workflow, translate it to a graph and enqueue it."""
    body = await read_object(request)
    try:
        prompt_record, prompt_id = _read_prompt(body)
        targets = _read_targets(body)
        async with needs.database.read() as connection:
            if "prompt_id" in body:
                await _check_new(connection, prompt_id)
            model_catalog = await catalog.read(connection, user, list(_input_image_names(prompt_record.prompt)))
        translation = await in_thread(
            lambda: translate(prompt_record, model_catalog, prompt_id, needs.settings.limits, targets)
        )
    except WorkflowRejected as refused:
        return json_response(refused.body, 400)
    warnings = Warnings(request)
    for text in translation.warnings:
        warnings.add(text, "prompt")
    previews = needs.settings.comfyui_previews
    clients.follow_prompt(prompt_id, user, translation.prompt_record, list(translation.batch.graph.nodes), previews)
    number = await _enqueue(needs, user, clients, translation.batch, prepend=_is_first(body))
    answer = {"prompt_id": prompt_id, "number": number, "node_errors": translation.node_errors}
    return json_response(answer | ({"warnings": warnings.texts} if warnings.texts else {}), headers=warnings.headers)


async def _enqueue(resources: Resources, user: User, clients: Clients, batch: Batch, *, prepend: bool) -> int:
    """Enqueue the batch of a followed prompt; return the id of its item.

    Raises QueueFull, PendingQuotaReached and DailyQuotaReached.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(clients.forget, batch.batch_id, user)
        queue_id = service.DEFAULT_QUEUE
        result = await service.enqueue(resources, queue_id, batch, prepend=prepend, whole=True, user=user)
        cleanup.pop_all()
    clients.mark_enqueued(batch.batch_id, user)
    return result.item_ids[0]


async def _check_new(connection: AsyncConnection, prompt_id: str) -> None:
    if await store.is_taken(connection, prompt_id):
        raise WorkflowRejected("prompt_id_in_use", "The prompt_id is already in use", prompt_id)


def _read_prompt(body: Mapping[str, Any]) -> tuple[PromptRecord, str]:
    """Return the submitted workflow and the id of its prompt: the client's, else a new one."""
    if "prompt" not in body:
        raise WorkflowRejected("no_prompt", "No prompt provided", "No prompt provided")
    if not isinstance(body["prompt"], dict):
        raise WorkflowRejected("invalid_prompt", "The prompt must be an object of nodes by id")
    extra = body.get("extra_data", {})
    if not isinstance(extra, dict):
        raise WorkflowRejected("invalid_request", "extra_data must be an object")
    client_id = body.get("client_id") or extra.get("client_id")
    if client_id is not None and not (isinstance(client_id, str) and len(client_id) <= MAX_ID_LENGTH):
        raise WorkflowRejected("invalid_request", f"client_id must be a string of at most {MAX_ID_LENGTH} characters")
    extra = {name: value for name, value in extra.items() if name not in SECRETS}
    return PromptRecord(body["prompt"], [], client_id, extra), _read_prompt_id(body.get("prompt_id"))


def _read_prompt_id(value: Any) -> str:
    if value is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as error:
        hint = "leave prompt_id out to have one generated"
        raise WorkflowRejected("invalid_prompt_id", "prompt_id must be a valid UUID", hint) from error


def _read_targets(body: Mapping[str, Any]) -> list[str] | None:
    """Return the ids of the output nodes that are to run; None for all."""
    targets = body.get("partial_execution_targets")
    if targets is not None and not (isinstance(targets, list) and all(isinstance(node_id, str) for node_id in targets)):
        raise WorkflowRejected("invalid_request", "partial_execution_targets must be a list of node ids")
    return targets


def _input_image_names(prompt: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the images that a workflow loads."""
    for node in prompt.values():
        kind = TYPES.get(str(node.get("class_type"))) if isinstance(node, dict) else None
        inputs = node.get("inputs") if kind else None
        if kind and isinstance(inputs, dict):
            for name, declared in kind.inputs.items():
                if declared.list_name == "images" and isinstance(inputs.get(name), str):
                    yield inputs[name]


def _is_first(body: Mapping[str, Any]) -> bool:
    number = body.get("number")
    return bool(body.get("front")) or (isinstance(number, int | float) and number < 0)


@routes.get("/queue")
async def get_queue(user: Caller, needs: Needs) -> Response:
    """List the caller's running and pending prompts."""
    return json_response(await history.queue(needs.database, user))


@routes.post("/queue")
async def post_queue(request: Request, needs: Needs, user: Caller) -> Response:
    """Delete pending prompts: all, or those named."""
    body = await read_object(request)
    for item_filter in _item_filters(body, user.user_id, needs.settings.limits.names):
        await service.delete_idle(needs, item_filter)
    return Response()


@routes.get("/history")
async def get_history(request: Request, user: Caller, needs: Needs) -> Response:
    """List the caller's prompts that have ended, oldest first: the newest `max_items` (100), or those from `offset`."""
    max_items, offset = query_number(request, "max_items"), query_number(request, "offset")
    count = history.DEFAULT_LENGTH if max_items is None or max_items < 0 else min(max_items, store.MAX_ROWS)
    async with needs.database.read() as connection:
        if offset is None or offset < 0:
            items = await store.list_items(connection, user, statuses=TERMINAL, newest=count)
        else:
            items = await store.list_ended(connection, user, offset, count)
    return json_response(await history.entries_of(needs.database, items))


@routes.get("/history/{prompt_id}")
async def get_history_of(user: Caller, needs: Needs, prompt_id: str) -> Response:
    """Get one prompt that has ended; empty if it has not, or does not exist."""
    return json_response(await history.entries(needs.database, user, prompt_ids=[prompt_id]))


@routes.post("/history")
async def post_history(request: Request, needs: Needs, user: Caller) -> Response:
    """Delete prompts that have ended: all, or those named. Their images stay."""
    body = await read_object(request)
    for item_filter in _item_filters(body, user.user_id, needs.settings.limits.names):
        await service.prune(needs, item_filter)
    return Response()


def _item_filters(body: Mapping[str, Any], user_id: str, limit: int) -> Iterator[ItemFilter]:
    """Yield the filters for `clear` and `delete`."""
    ids = body.get("delete", [])
    if not isinstance(ids, list) or len(ids) > limit or not all(isinstance(prompt_id, str) for prompt_id in ids):
        raise RequestRejected(f"must be a list of at most {limit} prompt ids (setting limits.names)", "delete")
    owner_fields = {"queue_id": service.DEFAULT_QUEUE, "destination": NAME, "owner": user_id}
    if body.get("clear"):
        yield ItemFilter(**owner_fields)
    elif ids:
        yield ItemFilter(**owner_fields, batch_ids=ids)


@routes.post("/interrupt")
async def interrupt(request: Request, needs: Needs, user: Caller) -> Response:
    """Cancel the caller's running prompt, or only the one that is named."""
    prompt_id = (await read_object(request)).get("prompt_id")
    prompt_ids = [str(prompt_id)] if prompt_id else None
    async with needs.database.read() as connection:
        running = await store.list_items(connection, user, statuses=("in_progress", "waiting"), prompt_ids=prompt_ids)
    for item in running:
        with contextlib.suppress(NotFound):  # deleted in the meantime
            await service.cancel(needs, service.DEFAULT_QUEUE, item.item_id, user=user)
    return Response()
