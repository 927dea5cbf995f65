"""SQL for API keys, which are stored as hashes."""

from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.errors import NotFound
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.kit.times import now
from invokeclone.tables import api_keys, users
from invokeclone.users.store import UserNotFound

_ANY = PreparedStatement(select(api_keys.c.id).limit(1))
_OWNER = PreparedStatement(
    select(
        api_keys.c.id,
        api_keys.c.last_used_at,
        users.c.user_id,
        users.c.email,
        users.c.display_name,
        users.c.is_admin,
    )
    .join(users, users.c.user_id == api_keys.c.user_id)
    .where(api_keys.c.key_hash == parameter("key_hash"), users.c.is_active)
)


class KeyNotFound(NotFound):
    """No API key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"API key {key_id} not found")


class ApiKey(NamedTuple):
    """A stored key: owner, name and prefix. Times are in the format of `kit/times.py`."""

    id: str
    user_id: str
    email: str
    name: str
    prefix: str
    created_at: str
    last_used_at: str | None


class VerifiedKey(NamedTuple):
    """A key that was presented, with the current state of its active account."""

    id: str
    last_used_at: str | None
    user_id: str
    email: str
    display_name: str | None
    is_admin: bool


async def has_keys(connection: AsyncConnection) -> bool:
    """Return whether any user has a key."""
    return await _ANY.first(connection) is not None


async def find(connection: AsyncConnection, key_hash: str) -> VerifiedKey | None:
    """Return the key with this hash and its account; None if there is none, or the account is disabled."""
    row = await _OWNER.first(connection, key_hash=key_hash)
    if row is None:
        return None
    key_id, last_used_at, user_id, email, display_name, is_admin = row
    return VerifiedKey(key_id, last_used_at, user_id, email, display_name, bool(is_admin))


async def list_all(connection: AsyncConnection, user_id: str | None) -> list[ApiKey]:
    """Return the keys of one account, or of all accounts for None, the oldest first."""
    query = select(
        api_keys.c.id,
        api_keys.c.user_id,
        users.c.email,
        api_keys.c.name,
        api_keys.c.prefix,
        api_keys.c.created_at,
        api_keys.c.last_used_at,
    ).join(users, users.c.user_id == api_keys.c.user_id)
    if user_id is not None:
        query = query.where(api_keys.c.user_id == user_id)
    return [ApiKey(*row) for row in await connection.execute(query.order_by(api_keys.c.created_at, api_keys.c.id))]


async def add(connection: AsyncConnection, user_id: str, *, name: str, key_hash: str, prefix: str) -> None:
    """Insert a new key. Raise UserNotFound."""
    values: dict[str, Any] = {"name": name, "key_hash": key_hash, "prefix": prefix, "created_at": now()}
    try:
        await connection.execute(insert(api_keys).values(id=str(uuid4()), user_id=user_id, **values))
    except IntegrityError as error:
        raise UserNotFound(user_id) from error


async def note_use(connection: AsyncConnection, key_id: str, before: str | None) -> None:
    """Set the time of last use to now, unless another process did so after `before` was read."""
    unchanged = api_keys.c.last_used_at.is_not_distinct_from(before)
    await connection.execute(update(api_keys).where(api_keys.c.id == key_id, unchanged).values(last_used_at=now()))


async def remove(connection: AsyncConnection, key_id: str) -> None:
    """Delete a key. Raise KeyNotFound."""
    if not (await connection.execute(delete(api_keys).where(api_keys.c.id == key_id))).rowcount:
        raise KeyNotFound(key_id)
