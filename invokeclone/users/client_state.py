"""SQL for client state: opaque texts by key, per user."""

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.times import now
from invokeclone.tables import client_state


async def get(connection: AsyncConnection, user_id: str, key: str) -> str | None:
    """Return the text under `key`, None when there is none."""
    value: str | None = await connection.scalar(
        select(client_state.c.value).where(client_state.c.user_id == user_id, client_state.c.key == key)
    )
    return value


async def set_values(connection: AsyncConnection, user_id: str, values: dict[str, str]) -> None:
    """Store each text under its key, replacing earlier ones."""
    if not values:
        return
    moment = now()
    rows = [{"user_id": user_id, "key": key, "value": value, "updated_at": moment} for key, value in values.items()]
    new = insert(client_state)
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=["user_id", "key"],
            set_={"value": new.excluded.value, "updated_at": new.excluded.updated_at},
        ),
        rows,
    )


async def keys(connection: AsyncConnection, user_id: str, prefix: str) -> list[str]:
    """Return the keys that begin with `prefix`, sorted; case-sensitive."""
    rows = await connection.scalars(
        select(client_state.c.key)
        .where(client_state.c.user_id == user_id, func.substr(client_state.c.key, 1, len(prefix)) == prefix)
        .order_by(client_state.c.key)
    )
    return list(rows)


async def remove(connection: AsyncConnection, user_id: str, key: str) -> None:
    """Delete the text under `key`, if there is one."""
    await connection.execute(delete(client_state).where(client_state.c.user_id == user_id, client_state.c.key == key))


async def clear(connection: AsyncConnection, user_id: str) -> None:
    """Delete every text of the user."""
    await connection.execute(delete(client_state).where(client_state.c.user_id == user_id))
