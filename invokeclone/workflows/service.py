"""Operations of the workflow library: permissions, call compatibility, thumbnails and default workflows."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from invokeclone.images.encoding import record_images
from invokeclone.images.encoding.record_images import NoThumbnail, StoredThumbnail
from invokeclone.kit.paging import SQLiteDirection, check_page
from invokeclone.kit.process.offload import in_thread, off_loop
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.addresses import WORKFLOW_THUMBNAILS
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User
from invokeclone.workflows import compatibility, conversion, store
from invokeclone.workflows.errors import DefaultWorkflow, NotYourWorkflow, PageInvalid, WorkflowInvalid
from invokeclone.workflows.events import (
    WorkflowAccessRevokedEvent,
    WorkflowCreatedEvent,
    WorkflowDeletedEvent,
    WorkflowUpdatedEvent,
)
from invokeclone.workflows.schemas import (
    Workflow,
    WorkflowCallCompatibility,
    WorkflowCallCompatibilityReason,
    WorkflowCategory,
    WorkflowRecordOrderBy,
    WorkflowWithoutID,
)
from invokeclone.workflows.store import Filter

DEFAULTS = Path(__file__).parent / "defaults"
"""Folder of the default workflows: a JSON file each, and a WebP thumbnail of the same name."""
DEFAULT_PREFIX = "default_"
"""Prefix of the ids of default workflows; the file name follows."""

SHARED = "shared"
"""Tag of shared workflows."""

JUDGE_BATCH_SIZE = 20
MAX_OFFSET = 2**62
Judgement = tuple[WorkflowCallCompatibility, str]


def _require_reader(user: User, row: Any) -> None:
    is_public = bool(row.is_public) or row.category == WorkflowCategory.Default.value
    if not rights.may_read(user, row.user_id, is_public=is_public):
        raise NotYourWorkflow(row.workflow_id)


def _require_writer(user: User, row: Any) -> None:
    if row.category == WorkflowCategory.Default.value:
        raise DefaultWorkflow(row.workflow_id)
    if not rights.owns(user, row.user_id):
        raise NotYourWorkflow(row.workflow_id)


# Reading


async def get(resources: Resources, workflow_id: str, user: User) -> bytes:
    """Return a workflow as JSON. Raises WorkflowNotFound, NotYourWorkflow."""
    row = await _row(resources, workflow_id)
    _require_reader(user, row)
    if row.judged_by != _fingerprint(resources):
        await judge_all(resources)
        row = await _row(resources, workflow_id)
    return store.record(row, whole=True)


async def read(resources: Resources, workflow_id: str, user: User) -> Workflow:
    """Return a workflow that `user` may read. Raises WorkflowNotFound, NotYourWorkflow."""
    row = await _row(resources, workflow_id)
    _require_reader(user, row)
    return Workflow.model_validate_json(row.workflow)


async def _row(resources: Resources, workflow_id: str) -> Any:
    async with resources.database.read() as connection:
        return await store.get(connection, workflow_id)


async def listing(
    resources: Resources,
    criteria: Filter,
    order_by: WorkflowRecordOrderBy,
    direction: SQLiteDirection,
    *,
    page: int,
    per_page: int,
) -> bytes:
    """Return a page of workflows as JSON, or all if `per_page` is 0. Raises PageInvalid."""
    if not (0 <= page <= MAX_OFFSET and 0 <= per_page <= MAX_OFFSET):
        raise PageInvalid
    check_page(per_page, resources.settings.limits, "per_page")
    if criteria.is_callable is not None:
        await judge_all(resources)
    take, skip = (per_page, min(page * per_page, MAX_OFFSET)) if per_page else (-1, 0)
    rows, total = await _rows(resources, criteria, order_by, direction, skip=skip, take=take)
    fingerprint = _fingerprint(resources)
    if any(row.judged_by != fingerprint for row in rows):
        await judge_all(resources)
        rows, total = await _rows(resources, criteria, order_by, direction, skip=skip, take=take)
    size = per_page or total
    pages = -(-total // per_page) if per_page else 1
    items = [store.item(row) for row in rows]
    return orjson.dumps({"page": page, "pages": pages, "per_page": size, "total": total, "items": items})


async def _rows(
    resources: Resources,
    criteria: Filter,
    order_by: WorkflowRecordOrderBy,
    direction: SQLiteDirection,
    *,
    skip: int,
    take: int,
) -> tuple[list[Any], int]:
    """Return the rows of a page, and the total number of rows."""
    async with resources.database.read() as connection:
        rows = await store.page(connection, criteria, order_by, direction, skip=skip, take=take)
        return rows, len(rows) if take < 0 else await store.count(connection, criteria)


# Call compatibility


def _fingerprint(resources: Resources) -> str:
    return compatibility.fingerprint(resources.settings.max_queue_size)


async def _judge(resources: Resources, workflow: WorkflowWithoutID) -> Judgement:
    """Check whether graphs can call the workflow; return the result and the fingerprint it depends on."""
    judged_by = _fingerprint(resources)
    return await in_thread(compatibility.judge, workflow, resources.settings.max_queue_size), judged_by


async def judge_all(resources: Resources) -> None:
    """Check each workflow that has not been checked with the current fingerprint."""
    judged_by, capacity = _fingerprint(resources), resources.settings.max_queue_size
    while True:
        async with resources.database.read() as connection:
            rows = await store.find_unjudged(connection, judged_by, JUDGE_BATCH_SIZE)
        if not rows:
            return
        judgements = await in_thread(
            lambda texts: [_judge_text(workflow_text, capacity) for workflow_text in texts], dict(rows).values()
        )
        async with resources.database.write() as connection:
            for (workflow_id, text), judgement in zip(rows, judgements, strict=True):
                await store.set_judgement(connection, workflow_id, text, judgement, judged_by)


def _judge_text(text: str, capacity: int) -> WorkflowCallCompatibility:
    try:
        workflow = Workflow.model_validate_json(text)
    except ValidationError as error:
        reason = WorkflowCallCompatibilityReason.Unknown
        return WorkflowCallCompatibility(is_callable=False, reason=reason, message=f"not a workflow: {error}")
    return compatibility.judge(workflow, capacity)


# Writing


def _text(workflow: Workflow) -> str:
    """Return the workflow as JSON. Raises WorkflowInvalid for text that is not valid Unicode."""
    try:
        return workflow.as_json()
    except PydanticSerializationError as error:
        raise WorkflowInvalid(f"the workflow cannot be stored: {error}") from error


def _check(workflow: WorkflowWithoutID) -> None:
    """Raise WorkflowInvalid for default workflows, and for several workflow_return nodes."""
    if workflow.meta.category is WorkflowCategory.Default:
        raise WorkflowInvalid("workflows of the category 'default' cannot be saved: use the category 'user'")
    if conversion.count_returns(workflow.nodes) > 1:
        raise WorkflowInvalid("a workflow may have at most one workflow_return node")


async def create(resources: Resources, workflow: WorkflowWithoutID, user: User) -> bytes:
    """Create a workflow and return it as JSON; in multi-user mode it is not shared. Raises WorkflowInvalid."""
    _check(workflow)
    named = Workflow.model_construct(**dict(workflow), id=str(uuid4()))  # already validated, and may be large
    text = await off_loop(lambda: _text(named))
    judgement = await _judge(resources, named)
    is_public = not resources.settings.multiuser
    async with resources.database.write() as connection:
        await store.create(connection, named, text, judgement, user_id=user.user_id, is_public=is_public)
        row = await store.get(connection, named.id)
    event = WorkflowCreatedEvent(workflow_id=named.id, user_id=user.user_id, is_public=is_public)
    resources.events.emit(event)
    return store.record(row, whole=False)


async def update(resources: Resources, workflow: Workflow, user: User) -> bytes:
    """Replace the workflow with this id and return it as JSON.

    Raises WorkflowInvalid, WorkflowNotFound, NotYourWorkflow, DefaultWorkflow.
    """
    _check(workflow)
    text = await off_loop(lambda: _text(workflow))
    judgement = await _judge(resources, workflow)
    async with resources.database.write() as connection:
        before = await store.get(connection, workflow.id)
        _require_writer(user, before)
        await store.change(connection, workflow, text, judgement)
        after = await store.get(connection, workflow.id)
    _emit_change(resources, before, after)
    return store.record(after, whole=False)


async def set_public(resources: Resources, workflow_id: str, user: User, *, is_public: bool) -> bytes:
    """Share a workflow with all users or stop sharing it, and update its tag `shared`; raises as `update` does."""
    async with resources.database.write() as connection:
        before = await store.get(connection, workflow_id)
        _require_writer(user, before)
        workflow = _with_shared_tag(Workflow.model_validate_json(before.workflow), is_public=is_public)
        await store.change(connection, workflow, _text(workflow), _row_judgement(before), is_public=is_public)
        after = await store.get(connection, workflow_id)
    _emit_change(resources, before, after)
    return store.record(after, whole=False)


def _with_shared_tag(workflow: Workflow, *, is_public: bool) -> Workflow:
    """Return the workflow with or without the tag `shared`; if the tag need not change, its tags are not rewritten."""
    tags = store.split_tags(workflow.tags)
    if is_public == (SHARED in tags):
        return workflow
    changed = [*tags, SHARED] if is_public else [tag for tag in tags if tag != SHARED]
    return workflow.model_copy(update={"tags": ", ".join(changed)})


def _row_judgement(row: Any) -> Judgement:
    """Return the compatibility stored in a row, and its fingerprint."""
    reason = WorkflowCallCompatibilityReason(row.call_reason)
    is_callable = reason is WorkflowCallCompatibilityReason.Ok
    judgement = WorkflowCallCompatibility(is_callable=is_callable, reason=reason, message=row.call_message)
    return judgement, row.judged_by


def _emit_change(resources: Resources, before: Any, after: Any) -> None:
    resources.events.emit(
        WorkflowUpdatedEvent(
            workflow_id=after.workflow_id,
            user_id=after.user_id,
            old_is_public=before.is_public,
            new_is_public=after.is_public,
        )
    )
    if before.is_public and not after.is_public and resources.settings.multiuser:
        resources.events.emit(WorkflowAccessRevokedEvent(workflow_id=after.workflow_id, user_id=after.user_id))


async def delete(resources: Resources, workflow_id: str, user: User) -> None:
    """Delete a workflow and its thumbnail. Raises WorkflowNotFound, NotYourWorkflow, DefaultWorkflow."""
    async with resources.database.write() as connection:
        row = await store.get(connection, workflow_id)
        _require_writer(user, row)
        await store.delete_workflow(connection, workflow_id)
    resources.events.emit(WorkflowDeletedEvent(workflow_id=workflow_id, user_id=row.user_id, is_public=row.is_public))
    await record_images.remove_of_deleted(resources.storage, WORKFLOW_THUMBNAILS, workflow_id)


async def open_workflow(resources: Resources, workflow_id: str, user: User) -> None:
    """Set the time at which a workflow was last opened. Raises WorkflowNotFound, NotYourWorkflow."""
    async with resources.database.write() as connection:
        _require_reader(user, await store.get(connection, workflow_id))
        await store.set_opened(connection, workflow_id)


# Thumbnails


async def set_thumbnail(
    resources: Resources, workflow_id: str, data: bytes, content_type: str | None, user: User
) -> None:
    """Set the thumbnail of a workflow.

    Raises WorkflowNotFound, NotYourWorkflow, DefaultWorkflow, NotAnImage, TooManyPixels.
    """
    _require_writer(user, await _row(resources, workflow_id))
    webp = await record_images.make(data, content_type, resources.settings.limits)
    await record_images.save(resources.storage, WORKFLOW_THUMBNAILS, workflow_id, webp)
    async with resources.database.write() as connection:
        await store.set_thumbnail(connection, workflow_id, record_images.new_version())


async def delete_thumbnail(resources: Resources, workflow_id: str, user: User) -> None:
    """Delete the thumbnail of a workflow. Raises WorkflowNotFound, NotYourWorkflow, DefaultWorkflow, NoThumbnail."""
    async with resources.database.write() as connection:
        row = await store.get(connection, workflow_id)
        _require_writer(user, row)
        if row.thumbnail is None:
            raise NoThumbnail(workflow_id)
        await store.set_thumbnail(connection, workflow_id, None)
    await record_images.remove(resources.storage, WORKFLOW_THUMBNAILS, workflow_id)


async def thumbnail_of(resources: Resources, workflow_id: str, user: User) -> StoredThumbnail:
    """Return the thumbnail file of a workflow. Raises WorkflowNotFound, NotYourWorkflow, NoThumbnail."""
    row = await _row(resources, workflow_id)
    _require_reader(user, row)
    if row.category == WorkflowCategory.Default.value:
        bundled = LocalStorage(DEFAULTS.parent)
        return await record_images.find(bundled, DEFAULTS.name, workflow_id.removeprefix(DEFAULT_PREFIX), bundled=True)
    return await record_images.find(resources.storage, WORKFLOW_THUMBNAILS, workflow_id)


# Default workflows


async def start(resources: Resources, folder: Path = DEFAULTS) -> None:
    """Update the default workflows in the database to those in `folder`: add, replace or delete them."""
    bundled = {default.workflow.id: default for default in await in_thread(_read_defaults, folder)}
    async with resources.database.read() as connection:
        present = await store.defaults(connection)
    if present == {workflow_id: (default.text, default.mark) for workflow_id, default in bundled.items()}:
        return
    unjudged = WorkflowCallCompatibility(is_callable=False, reason=WorkflowCallCompatibilityReason.Unknown), ""
    async with resources.database.write() as connection:
        present = await store.defaults(connection)  # another server may have added them in the meantime
        for workflow_id in present.keys() - bundled.keys():
            await store.delete_workflow(connection, workflow_id)
        for workflow_id, (workflow, text, mark) in bundled.items():
            before, mark_before = present.get(workflow_id, (None, None))
            if before is None:
                await store.create(connection, workflow, text, unjudged, user_id=SYSTEM.user_id, is_public=False)
            elif before != text:
                await store.change(connection, workflow, text, unjudged)
            if mark_before != mark:
                await store.set_thumbnail(connection, workflow_id, mark)


class _Default(NamedTuple):
    workflow: Workflow
    text: str
    mark: str | None
    """Hash of the thumbnail, or None if there is none."""


def _read_defaults(folder: Path) -> list[_Default]:
    defaults = []
    for file in sorted(folder.glob("*.json")):
        workflow = Workflow.model_validate_json(file.read_bytes())
        thumbnail = file.with_suffix(".webp")
        mark = hashlib.sha256(thumbnail.read_bytes()).hexdigest()[:16] if thumbnail.exists() else None
        defaults.append(_Default(workflow, _text(workflow), mark))
    return defaults
