"""System prompts: SQL, access checks, and the prompts that a new database starts with."""

import json
from typing import Any
from uuid import uuid4

from sqlalchemy import bindparam, delete, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import now
from invokeclone.presets.errors import PresetNotYours, PromptNotFound
from invokeclone.presets.schemas import SystemPromptChanges, SystemPromptRecordDTO, SystemPromptWithoutId
from invokeclone.presets.service import BUNDLED
from invokeclone.tables import app_state
from invokeclone.tables import system_prompts as prompts
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User

_SEEDED_KEY = "system_prompts_begun"
"""Key in `app_state` that is set once the bundled prompts have been inserted."""

_ALL = select(prompts).order_by(func.lower(prompts.c.name), prompts.c.name, prompts.c.id)
_FOR_VIEWER = _ALL.where(or_(prompts.c.user_id == bindparam("viewer"), prompts.c.is_public == literal_column("1")))
_ONE = select(prompts).where(prompts.c.id == bindparam("wanted"))


def _prompt(row: Any) -> SystemPromptRecordDTO:
    return SystemPromptRecordDTO.model_validate(dict(row._mapping))  # noqa: SLF001  (SQLAlchemy's documented name)


async def list_prompts(connection: AsyncConnection, user: User) -> list[SystemPromptRecordDTO]:
    """Return the prompts that `user` may read, sorted by name."""
    if user.is_admin:
        return [_prompt(row) for row in await connection.execute(_ALL)]
    return [_prompt(row) for row in await connection.execute(_FOR_VIEWER, {"viewer": user.user_id})]


async def get(connection: AsyncConnection, prompt_id: str, user: User) -> SystemPromptRecordDTO:
    """Return a prompt that `user` may read. Raises PromptNotFound, PresetNotYours."""
    prompt = await _find(connection, prompt_id)
    if not rights.may_read(user, prompt.user_id, is_public=prompt.is_public):
        raise PresetNotYours
    return prompt


async def _find(connection: AsyncConnection, prompt_id: str) -> SystemPromptRecordDTO:
    row = (await connection.execute(_ONE, {"wanted": prompt_id})).one_or_none()
    if row is None:
        raise PromptNotFound(prompt_id)
    return _prompt(row)


async def create(
    connection: AsyncConnection, prompt: SystemPromptWithoutId, user: User, *, is_public: bool
) -> SystemPromptRecordDTO:
    """Create a prompt; names need not be unique."""
    prompt_id, moment = str(uuid4()), now()
    columns = {"user_id": user.user_id, "is_public": is_public, "created_at": moment, "updated_at": moment}
    await connection.execute(insert(prompts).values(id=prompt_id, **prompt.model_dump(), **columns))
    return await _find(connection, prompt_id)


async def update_prompt(
    connection: AsyncConnection, prompt_id: str, changes: SystemPromptChanges, user: User
) -> SystemPromptRecordDTO:
    """Update a prompt. Raises PromptNotFound, PresetNotYours."""
    await _require_owner(connection, prompt_id, user)
    values = changes.model_dump(exclude_none=True)
    await connection.execute(update(prompts).where(prompts.c.id == prompt_id).values(**values, updated_at=now()))
    return await _find(connection, prompt_id)


async def delete_prompt(connection: AsyncConnection, prompt_id: str, user: User) -> None:
    """Delete a prompt. Raises PromptNotFound, PresetNotYours."""
    await _require_owner(connection, prompt_id, user)
    await connection.execute(delete(prompts).where(prompts.c.id == prompt_id))


async def _require_owner(connection: AsyncConnection, prompt_id: str, user: User) -> None:
    if not rights.owns(user, (await _find(connection, prompt_id)).user_id):
        raise PresetNotYours


async def start(resources: Resources) -> None:
    """Insert the bundled prompts once per database, so that prompts deleted by users do not come back."""
    async with resources.database.read() as connection:
        if await connection.scalar(select(app_state.c.value).where(app_state.c.key == _SEEDED_KEY)) is not None:
            return
    text = await in_thread((BUNDLED / "system_prompts.json").read_text, "utf-8")
    moment = now()
    columns = {"user_id": SYSTEM.user_id, "is_public": True, "created_at": moment, "updated_at": moment}
    async with resources.database.write() as connection:
        rows = [{**prompt, **columns} for prompt in json.loads(text)]
        await connection.execute(insert_or(prompts).on_conflict_do_nothing(), rows)
        await connection.execute(insert_or(app_state).values(key=_SEEDED_KEY, value="true").on_conflict_do_nothing())
