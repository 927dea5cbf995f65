"""What became of prompts, in ComfyUI's form, from the rows of the queue."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.process.offload import in_thread
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import ACTIVE, TERMINAL
from invokeclone.shims.comfyui import record, store
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.users.current import User

SHORT = 100
"""Prompts in a history whose length the client leaves open: many clients ask for all of it several times a second."""
REMEMBERED = 128
"""Entries; each holds a workflow of at most some megabytes, mostly of some kilobytes."""
Message = tuple[str, dict[str, Any]]

_remembered: OrderedDict[tuple[int, str], dict[str, Any]] = OrderedDict()
"""Entries of prompts that have ended, which change no more, by item and session."""


@dataclass(frozen=True)
class FailedNode:
    """The node that a run ended at, and what ran before it."""

    node_id: str | None
    executed: Sequence[str]


async def entries(
    connection: AsyncConnection, user: User, *, prompt_ids: Sequence[str] | None = None, newest: int = SHORT
) -> dict[str, dict[str, Any]]:
    """Return the entries of prompts that have ended, by id, the oldest first."""
    items = await store.list_items(connection, user, statuses=TERMINAL, prompt_ids=prompt_ids, newest=newest)
    return await entries_of(connection, items)


async def entries_of(connection: AsyncConnection, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    """Return the entries of items that have ended; those without a workflow of ComfyUI's are left out."""
    found = {_key(item): _remembered[_key(item)] for item in items if _key(item) in _remembered}
    unknown = [item for item in items if _key(item) not in found]
    if unknown:
        texts = await store.sessions(connection, [item.item_id for item in unknown])
        made = await in_thread(lambda: {_key(item): _made(item, texts.get(item.item_id)) for item in unknown})
        new = {key: entry for key, entry in made.items() if entry is not None}
        _remember(new)
        found |= new
    return {item.batch_id: found[_key(item)] for item in items if _key(item) in found}


def _key(item: Item) -> tuple[int, str]:
    return item.item_id, item.session_id


def _remember(made: Mapping[tuple[int, str], dict[str, Any]]) -> None:
    """Keep the newest of many."""
    _remembered.update(made)
    while len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)


def _made(item: Item, text: str | None) -> dict[str, Any] | None:
    """Return the entry of an item; its session may be some megabytes of JSON."""
    if text is None:
        return None
    session = orjson.loads(text)
    kept = record.of_session(session)
    return None if kept is None else _entry(item, kept, session)


def _entry(item: Item, kept: PromptRecord, session: Mapping[str, Any]) -> dict[str, Any]:
    outputs = _outputs(kept, session)
    messages: list[Message] = []
    if item.started_at:
        messages += started(item.batch_id, milliseconds(item.started_at))
    messages.append(ended(item, kept, _failure(kept, session)))
    done = item.status == "completed"
    return {
        "prompt": listed(item, kept),
        "outputs": outputs,
        "status": {
            "status_str": "success" if done else "error",
            "completed": done,
            "messages": [list(message) for message in messages],
        },
        "meta": {
            node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            for node_id in outputs
        },
    }


def _outputs(kept: PromptRecord, session: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pictures by output node, in their order."""
    found: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for made, result in session["results"].items():
        ours = session["prepared_source_mapping"].get(made, made)
        node_id = record.comfy_id(kept.ids, ours)
        if node_id is not None and record.is_saved(ours) and "image" in result:
            picture = picture_of(kept, node_id, result["image"]["image_name"])
            found.setdefault(node_id, []).append((record.number(ours), picture))
    return {
        node_id: {"images": [picture for _, picture in sorted(found[node_id], key=lambda pair: pair[0])]}
        for node_id in kept.outputs
        if node_id in found
    }


def picture_of(kept: PromptRecord, node_id: str, name: str) -> dict[str, str]:
    """Return how a picture is named to clients."""
    kind = "temp" if kept.class_of(node_id) == "PreviewImage" else "output"
    return {"filename": name, "subfolder": "", "type": kind}


def _failure(kept: PromptRecord, session: Mapping[str, Any]) -> FailedNode:
    sources = session["prepared_source_mapping"]
    failed = next((sources.get(made, made) for made in session["errors"]), None)
    ran = [record.comfy_id(kept.ids, sources.get(made, made)) for made in session["results"]]
    return FailedNode(
        record.comfy_id(kept.ids, failed) if failed else None,
        list(dict.fromkeys(node_id for node_id in ran if node_id is not None)),
    )


# Messages: the same in the history and on the socket


def started(prompt_id: str, at: int) -> list[Message]:
    """Return what is told when a prompt begins."""
    return [
        ("execution_start", {"prompt_id": prompt_id, "timestamp": at}),
        ("execution_cached", {"nodes": [], "prompt_id": prompt_id, "timestamp": at}),
    ]


def ended(item: Item, kept: PromptRecord, failure: FailedNode) -> Message:
    """Return what is told when a prompt has ended."""
    at = milliseconds(item.completed_at or item.updated_at)
    if item.status == "completed":
        return "execution_success", {"prompt_id": item.batch_id, "timestamp": at}
    node_id = failure.node_id
    common = {
        "prompt_id": item.batch_id,
        "node_id": node_id,
        "node_type": kept.class_of(node_id) if node_id else None,
        "executed": list(failure.executed),
        "timestamp": at,
    }
    if item.status == "canceled":
        return "execution_interrupted", common
    return "execution_error", common | {
        "exception_message": item.error_message or "",
        "exception_type": item.error_type or "",
        "traceback": (item.error_traceback or "").splitlines(keepends=True),
        "current_inputs": {},
        "current_outputs": [],
    }


def milliseconds(time: str) -> int:
    """Return a time of the database in milliseconds since 1970."""
    return round(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000)


# The queue


def listed(item: Item, kept: PromptRecord) -> list[Any]:
    """Return a prompt as ComfyUI lists it: number, id, workflow, what came with it, output nodes."""
    extra = kept.extra_data | ({"client_id": kept.client_id} if kept.client_id else {})
    return [item.item_id, item.batch_id, kept.prompt, extra, kept.outputs]


async def queue(connection: AsyncConnection, user: User) -> dict[str, list[Any]]:
    """Return the user's prompts that run, and those that wait."""
    items = await store.list_items(connection, user, statuses=ACTIVE)
    known = await store.records(connection, [item.item_id for item in items])
    told: dict[str, list[Any]] = {"queue_running": [], "queue_pending": []}
    for item in items:
        if kept := known.get(item.item_id):
            side = "queue_pending" if item.status == "pending" else "queue_running"
            told[side].append(listed(item, kept))
    return told
