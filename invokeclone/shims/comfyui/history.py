"""History and queue entries of prompts in ComfyUI's form, from the rows of the queue."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.sql.database import Database
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import ACTIVE, TERMINAL
from invokeclone.shims.comfyui import record, store
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.users.current import User

DEFAULT_LENGTH = 100
"""Prompts in a history without a requested length: many clients poll all of it several times a second."""
MAX_CACHED_ENTRIES = 128
"""Cached entries; each holds a workflow, usually some KB and at most some MB."""
Message = tuple[str, dict[str, Any]]

_cached_entries: OrderedDict[tuple[int, str], dict[str, Any]] = OrderedDict()
"""Entries of prompts that have ended, which do not change any more, by item and session."""


class SavedImage(NamedTuple):
    """An image of an output node."""

    node_id: str
    number: int
    """Among the images of the node."""
    name: str


@dataclass(frozen=True)
class FailedNode:
    """The node at which a run ended, and the nodes that ran before it."""

    node_id: str | None
    executed: Sequence[str]


async def entries(
    database: Database, user: User, *, prompt_ids: Sequence[str] | None = None, newest: int = DEFAULT_LENGTH
) -> dict[str, dict[str, Any]]:
    """Return the entries of prompts that have ended, by id, oldest first."""
    async with database.read() as connection:
        items = await store.list_items(connection, user, statuses=TERMINAL, prompt_ids=prompt_ids, newest=newest)
    return await entries_of(database, items)


async def entries_of(database: Database, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    """Return the entries of items that have ended, by prompt id; items without a ComfyUI workflow are left out."""
    entries_by_item = await entries_by_id(database, items)
    return {item.batch_id: entries_by_item[item.item_id] for item in items if item.item_id in entries_by_item}


async def entries_by_id(database: Database, items: Sequence[Item]) -> dict[int, dict[str, Any]]:
    """Return the entries of items that have ended, by item id; items without a ComfyUI workflow are left out."""
    entries_by_key = {_key(item): _cached_entries[_key(item)] for item in items if _key(item) in _cached_entries}
    uncached = [item for item in items if _key(item) not in entries_by_key]
    if uncached:
        async with database.read() as connection:
            texts = await store.sessions(connection, [item.item_id for item in uncached])
        built_entries = await in_thread(
            lambda: {_key(item): _build_entry(item, texts.get(item.item_id)) for item in uncached}
        )
        new_entries = {key: entry for key, entry in built_entries.items() if entry is not None}
        _cache(new_entries)
        entries_by_key |= new_entries
    return {item.item_id: entries_by_key[_key(item)] for item in items if _key(item) in entries_by_key}


def _key(item: Item) -> tuple[int, str]:
    return item.item_id, item.session_id


def _cache(new_entries: Mapping[tuple[int, str], dict[str, Any]]) -> None:
    """Cache entries and evict the oldest."""
    _cached_entries.update(new_entries)
    while len(_cached_entries) > MAX_CACHED_ENTRIES:
        _cached_entries.popitem(last=False)


def _build_entry(item: Item, text: str | None) -> dict[str, Any] | None:
    """Return the entry of an item, from its session (up to some MB of JSON); None without a workflow."""
    if text is None:
        return None
    session = orjson.loads(text)
    prompt_record = record.of_session(session)
    return None if prompt_record is None else _entry(item, prompt_record, session)


def _entry(item: Item, prompt_record: PromptRecord, session: Mapping[str, Any]) -> dict[str, Any]:
    outputs = _outputs(prompt_record, session)
    failure = _failure(prompt_record, session)
    kind = prompt_record.class_of(failure.node_id) if failure.node_id else None
    return {
        "prompt": queue_entry(item, prompt_record),
        "outputs": outputs,
        "status": status(item, failure, kind),
        "meta": {
            node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            for node_id in outputs
        },
    }


def status(item: Item, failure: FailedNode, kind: str | None) -> dict[str, Any]:
    """Return how an item ended; `kind` is the type of the failed node."""
    messages: list[Message] = []
    if item.started_at:
        messages += start_messages(item.batch_id, milliseconds(item.started_at))
    messages.append(end_message(item, failure, kind))
    succeeded = item.status == "completed"
    return {
        "status_str": "success" if succeeded else "error",
        "completed": succeeded,
        "messages": [list(message) for message in messages],
    }


def _outputs(prompt_record: PromptRecord, session: Mapping[str, Any]) -> dict[str, Any]:
    """Return the images of each output node, in order."""
    outputs: dict[str, Any] = {}
    for node_id, _, name in _images_of_outputs(prompt_record, session):
        if not prompt_record.is_sent(node_id):
            outputs.setdefault(node_id, {"images": []})["images"].append(image_reference(prompt_record, node_id, name))
    return outputs


def _images_of_outputs(prompt_record: PromptRecord, session: Mapping[str, Any]) -> list[SavedImage]:
    """Return the images of the output nodes, in the order of the nodes."""
    images = []
    for prepared_id, result in session["results"].items():
        source_id = session["prepared_source_mapping"].get(prepared_id, prepared_id)
        node_id = record.comfy_id(prompt_record.ids, source_id)
        if node_id in prompt_record.outputs and record.is_saved(source_id) and "image" in result:
            images.append(SavedImage(node_id, record.image_index(source_id), result["image"]["image_name"]))
    return sorted(images, key=lambda image: (prompt_record.outputs.index(image.node_id), image.number))


def image_reference(prompt_record: PromptRecord, node_id: str, name: str) -> dict[str, str]:
    """Return the reference to an image in ComfyUI's form."""
    kind = "temp" if prompt_record.class_of(node_id) == "PreviewImage" else "output"
    return {"filename": name, "subfolder": "", "type": kind}


async def images_to_send(database: Database, item: Item, prompt_record: PromptRecord) -> list[SavedImage]:
    """Return the images of SaveImageWebsocket nodes, in the order of the nodes."""
    if not any(prompt_record.is_sent(node_id) for node_id in prompt_record.outputs):
        return []
    async with database.read() as connection:
        text = (await store.sessions(connection, [item.item_id])).get(item.item_id)
    if text is None:
        return []
    images = await in_thread(lambda: _images_of_outputs(prompt_record, orjson.loads(text)))
    return [image for image in images if prompt_record.is_sent(image.node_id)]


def _failure(prompt_record: PromptRecord, session: Mapping[str, Any]) -> FailedNode:
    sources = session["prepared_source_mapping"]
    failed = next((sources.get(prepared_id, prepared_id) for prepared_id in session["errors"]), None)
    executed_ids = [
        record.comfy_id(prompt_record.ids, sources.get(prepared_id, prepared_id)) for prepared_id in session["results"]
    ]
    return FailedNode(
        record.comfy_id(prompt_record.ids, failed) if failed else None,
        list(dict.fromkeys(node_id for node_id in executed_ids if node_id is not None)),
    )


# Messages: the same in the history and on the socket


def start_messages(prompt_id: str, timestamp_ms: int) -> list[Message]:
    """Return the messages for the start of a prompt."""
    return [
        ("execution_start", {"prompt_id": prompt_id, "timestamp": timestamp_ms}),
        ("execution_cached", {"nodes": [], "prompt_id": prompt_id, "timestamp": timestamp_ms}),
    ]


def end_message(item: Item, failure: FailedNode, kind: str | None) -> Message:
    """Return the message for the end of a prompt; `kind` is the type of the failed node."""
    timestamp_ms = milliseconds(item.completed_at or item.updated_at)
    if item.status == "completed":
        return "execution_success", {"prompt_id": item.batch_id, "timestamp": timestamp_ms}
    common = {
        "prompt_id": item.batch_id,
        "node_id": failure.node_id,
        "node_type": kind,
        "executed": list(failure.executed),
        "timestamp": timestamp_ms,
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


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return round(time.time() * 1000)


def milliseconds(moment: str) -> int:
    """Return a timestamp of the database in milliseconds since 1970."""
    return round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000)


# The queue


def queue_entry(item: Item, prompt_record: PromptRecord) -> list[Any]:
    """Return a prompt as ComfyUI lists it: number, id, workflow, extra data, output nodes."""
    extra = prompt_record.extra_data | {"create_time": milliseconds(item.created_at)}
    if prompt_record.client_id:
        extra["client_id"] = prompt_record.client_id
    return [item.item_id, item.batch_id, prompt_record.prompt, extra, prompt_record.outputs]


async def queue(database: Database, user: User) -> dict[str, list[Any]]:
    """Return the user's running and pending prompts."""
    async with database.read() as connection:
        items = await store.list_items(connection, user, statuses=ACTIVE)
    records_by_item = await store.records(database, [item.item_id for item in items])
    lists: dict[str, list[Any]] = {"queue_running": [], "queue_pending": []}
    for item in items:
        if prompt_record := records_by_item.get(item.item_id):
            list_name = "queue_pending" if item.status == "pending" else "queue_running"
            lists[list_name].append(queue_entry(item, prompt_record))
    return lists
