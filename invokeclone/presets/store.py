"""SQL of style presets; access checks are in `service`."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import bindparam, delete, func, insert, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.times import now
from invokeclone.presets.errors import PresetNotFound
from invokeclone.presets.schemas import PresetData, PresetForm, PresetRow, PresetType, StylePresetRecordWithImage
from invokeclone.tables import style_presets as presets

_COLUMNS = (
    presets.c.id,
    presets.c.name,
    presets.c.type,
    presets.c.positive_prompt,
    presets.c.negative_prompt,
    presets.c.user_id,
    presets.c.is_public,
    presets.c.image,
)
_BY_NAME = (func.lower(presets.c.name), presets.c.name, presets.c.id)
_ALL = select(*_COLUMNS).order_by(*_BY_NAME)
_FOR_VIEWER = _ALL.where(
    or_(
        presets.c.user_id == bindparam("viewer"),
        presets.c.type == PresetType.Default.value,
        presets.c.is_public == literal_column("1"),
    )
)
_ONE = select(*_COLUMNS).where(presets.c.id == bindparam("wanted"))


def _preset(row: Any) -> StylePresetRecordWithImage:
    return StylePresetRecordWithImage(
        id=row.id,
        name=row.name,
        type=row.type,
        preset_data=PresetData(positive_prompt=row.positive_prompt, negative_prompt=row.negative_prompt),
        user_id=row.user_id,
        is_public=row.is_public,
        image=f"api/v1/style_presets/i/{row.id}/image?{row.image}" if row.image else None,
    )


async def list_presets(connection: AsyncConnection, viewer: str | None) -> list[StylePresetRecordWithImage]:
    """Return the presets that `viewer` may read, sorted by name; all presets if `viewer` is None."""
    rows = await connection.execute(_ALL if viewer is None else _FOR_VIEWER, {"viewer": viewer} if viewer else {})
    return [_preset(row) for row in rows]


async def exists(connection: AsyncConnection, preset_id: str) -> bool:
    """Return whether there is a preset."""
    return await connection.scalar(select(presets.c.id).where(presets.c.id == preset_id)) is not None


async def with_image(connection: AsyncConnection, preset_ids: Sequence[str]) -> set[str]:
    """Return those of `preset_ids` that have an image."""
    statement = select(presets.c.id).where(presets.c.id.in_(preset_ids), presets.c.image.is_not(None))
    return set(await connection.scalars(statement))


async def get(connection: AsyncConnection, preset_id: str) -> StylePresetRecordWithImage:
    """Return a preset. Raises PresetNotFound."""
    row = (await connection.execute(_ONE, {"wanted": preset_id})).one_or_none()
    if row is None:
        raise PresetNotFound(preset_id)
    return _preset(row)


async def create(
    connection: AsyncConnection, form: PresetForm, user_id: str, *, preset_id: str, image: str | None
) -> StylePresetRecordWithImage:
    """Create a preset; names need not be unique."""
    values = {**form.model_dump(mode="json"), "is_public": bool(form.is_public)}
    await connection.execute(
        insert(presets).values(id=preset_id, user_id=user_id, image=image, **values, **_timestamps())
    )
    return await get(connection, preset_id)


def _timestamps() -> dict[str, str]:
    moment = now()
    return {"created_at": moment, "updated_at": moment}


async def update_preset(
    connection: AsyncConnection, preset_id: str, form: PresetForm, image: str | None
) -> StylePresetRecordWithImage:
    """Update a preset and its image version. Raises PresetNotFound."""
    values = form.model_dump(mode="json", exclude_none=True)
    statement = update(presets).where(presets.c.id == preset_id).values(**values, image=image, updated_at=now())
    await connection.execute(statement)
    return await get(connection, preset_id)


async def delete_preset(connection: AsyncConnection, preset_id: str) -> None:
    """Delete a preset if it exists."""
    await connection.execute(delete(presets).where(presets.c.id == preset_id))


async def create_many(connection: AsyncConnection, rows: Sequence[PresetRow], user_id: str) -> None:
    """Create a preset of `user_id` from each row."""
    if rows:
        columns = {"user_id": user_id, "type": PresetType.User.value, "is_public": False, **_timestamps()}
        await connection.execute(insert(presets), [{"id": str(uuid4()), **row.model_dump(), **columns} for row in rows])


async def count_of(connection: AsyncConnection, user_id: str) -> int:
    """Return the number of presets of a user, not counting bundled ones."""
    conditions = presets.c.user_id == user_id, presets.c.type != PresetType.Default.value
    return int(await connection.scalar(select(func.count()).select_from(presets).where(*conditions)) or 0)


async def list_users(connection: AsyncConnection) -> list[tuple[str, str, str]]:
    """Return name, positive and negative prompt of every preset created by a user, sorted by name."""
    rows = await connection.execute(_ALL.where(presets.c.type == PresetType.User.value))
    return [(row.name, row.positive_prompt, row.negative_prompt) for row in rows]


async def defaults(connection: AsyncConnection) -> dict[str, tuple[str, str, str]]:
    """Return name, positive and negative prompt of the bundled presets, by id."""
    rows = await connection.execute(_ALL.where(presets.c.type == PresetType.Default.value))
    return {row.id: (row.name, row.positive_prompt, row.negative_prompt) for row in rows}


async def replace_default(connection: AsyncConnection, preset_id: str, texts: tuple[str, str, str], owner: str) -> None:
    """Insert a bundled preset, replacing a preset with the same id."""
    await delete_preset(connection, preset_id)
    name, positive, negative = texts
    form = PresetForm(name=name, positive_prompt=positive, negative_prompt=negative, type=PresetType.Default)
    await create(connection, form, owner, preset_id=preset_id, image=None)


async def delete_many(connection: AsyncConnection, preset_ids: Iterable[str]) -> None:
    """Delete the presets with these ids."""
    await connection.execute(delete(presets).where(presets.c.id.in_(list(preset_ids))))
