"""Workflows in node packs: added to the library with the pack's tag on install, deleted on uninstall."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.users.current import SYSTEM, User
from invokeclone.workflows import service, store
from invokeclone.workflows.schemas import WorkflowRecordOrderBy, WorkflowWithoutID

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_WORKFLOWS = 200
_TEXTS = ("author", "description", "version", "contact", "tags", "notes")
_log = log.get("custom_nodes")


def tag(pack: str) -> str:
    """Return the tag of a pack's workflows."""
    return f"node-pack:{pack}"


async def import_workflows(resources: Resources, folder: Path, user: User) -> int:
    """Add the workflows of a pack to the library and return their number. Invalid files are skipped."""
    workflows = await in_thread(lambda: list(_workflows(folder)))
    count = 0
    for workflow in workflows:
        try:
            await service.create(resources, workflow, user)
        except InvokeCloneError as error:
            _log.warning("skipped a workflow of the pack %s: %s", folder.name, error)
        else:
            count += 1
    return count


async def delete_workflows(resources: Resources, pack: str) -> None:
    """Delete the pack's workflows of all users from the library."""
    criteria = store.Filter(tags=(tag(pack),))
    async with resources.database.read() as connection:
        rows = await store.page(
            connection, criteria, WorkflowRecordOrderBy.Name, SQLiteDirection.Ascending, skip=0, take=-1
        )
    for row in rows:
        if tag(pack) in store.split_tags(row.tags) and row.category == "user":
            await service.delete(resources, row.workflow_id, SYSTEM)


def _workflows(folder: Path) -> Iterator[WorkflowWithoutID]:
    files = sorted(file for file in folder.rglob("*.json") if ".git" not in file.parts and not file.is_symlink())
    for file in files[:MAX_WORKFLOWS]:
        if file.stat().st_size > MAX_FILE_BYTES:
            continue
        try:
            content = orjson.loads(file.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if isinstance(content, dict) and isinstance(content.get("nodes"), list) and "edges" in content:
            try:
                yield _to_library_workflow(content, file.stem, folder.name)
            except ValidationError:
                continue


def _to_library_workflow(content: dict[str, Any], name: str, pack: str) -> WorkflowWithoutID:
    """Return a pack's workflow in the library's schema, with the pack's tag."""
    texts = {field: content.get(field) if isinstance(content.get(field), str) else "" for field in _TEXTS}
    tags = store.split_tags(str(texts["tags"]))
    version = content.get("meta", {}).get("version") if isinstance(content.get("meta"), dict) else None
    return WorkflowWithoutID.model_validate(
        {
            **content,
            **texts,
            "name": content.get("name") or name,
            "tags": ", ".join([*tags, tag(pack)] if tag(pack) not in tags else tags),
            "exposedFields": content.get("exposedFields") or [],
            "meta": {"version": version or "3.0.0", "category": "user"},
        }
    )
