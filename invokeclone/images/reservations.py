"""Locations at which a process creates or removes the files of recorded images: images are not moved there meanwhile.

A process that has lost its lock, or was stopped for a while, may remove files long after it decided to. Without its
reservation, another server could have moved an image back there by then. A reservation belongs to an intent
(`intent_log.py`) and ends with it: when its process has ended its work, or, after a crash, when the intent is settled.
Those of a machine that never comes back expire.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.schemas import ImageLocation
from invokeclone.tables import app_state, image_move_items

EXPIRES_AFTER = timedelta(days=1)
"""An S3 service refuses requests that were signed a quarter of an hour ago; a process may be stopped for longer."""
PREFIX = "image_reservation/"
"""Of the keys in `app_state`; the id of the intent follows. The value is JSON: the time, and the locations."""
_IS_RESERVATION = app_state.c.key.startswith(PREFIX, autoescape=True)


async def reserve(connection: AsyncConnection, intent_id: str, locations: Iterable[ImageLocation]) -> None:
    """Reserve locations for an intent, instead of those that it has; expired reservations are removed."""
    expired = [key for key, (time, _) in (await _read(connection)).items() if _is_expired(time)]
    if expired:
        await connection.execute(delete(app_state).where(app_state.c.key.in_(expired)))
    value = orjson.dumps([datetime.now(UTC).timestamp(), [list(location) for location in locations]]).decode()
    row = insert_or(app_state).values(key=PREFIX + intent_id, value=value)
    await connection.execute(row.on_conflict_do_update(index_elements=["key"], set_={"value": value}))


async def release(connection: AsyncConnection, intent_id: str) -> None:
    """End the reservation of an intent, if it has one."""
    await connection.execute(delete(app_state).where(app_state.c.key == PREFIX + intent_id))


async def list_reserved(connection: AsyncConnection, intent_id: str | None = None) -> set[ImageLocation]:
    """Return the locations that are reserved, for any intent or only for `intent_id`; an expired reservation counts no more."""
    reservations = await _read(connection)
    if intent_id is not None:
        reservations = {key: value for key, value in reservations.items() if key == PREFIX + intent_id}
    return {location for time, locations in reservations.values() if not _is_expired(time) for location in locations}


async def list_move_targets(connection: AsyncConnection) -> set[ImageLocation]:
    """Return the locations to which images are being moved."""
    rows = await connection.execute(select(image_move_items.c.image_name, image_move_items.c.to_subfolder))
    return {ImageLocation(*row) for row in rows}


async def _read(connection: AsyncConnection) -> dict[str, tuple[float, list[ImageLocation]]]:
    rows = await connection.execute(select(app_state.c.key, app_state.c.value).where(_IS_RESERVATION))
    parsed = {key: orjson.loads(value) for key, value in rows}
    return {
        key: (time, [ImageLocation(*location) for location in locations]) for key, (time, locations) in parsed.items()
    }


def _is_expired(time: float) -> bool:
    return datetime.now(UTC).timestamp() - time > EXPIRES_AFTER.total_seconds()
