"""The SQL of accounts. It knows neither passwords nor tokens, only what is kept of them."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.tables import users

SYSTEM_ID = "system"


async def has_admin(connection: AsyncConnection) -> bool:
    """Tell whether anybody has been made an admin; the owner of single-user mode's things doesn't count."""
    found = select(users.c.user_id).where(users.c.is_admin, users.c.user_id != SYSTEM_ID).limit(1)
    return (await connection.execute(found)).first() is not None
