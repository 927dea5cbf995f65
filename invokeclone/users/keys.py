"""API keys: credentials of programs, valid until they are revoked.

A key is 32 random bytes, so a fast hash is as safe as a slow one: 2^256 values cannot be enumerated, and there is no
dictionary of likely ones. Looking up a key is thus a single SELECT by an index; its timing reveals nothing useful
because hashes are compared.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from invokeclone.kit import log
from invokeclone.kit.errors import BadRequest
from invokeclone.kit.sql.database import Database
from invokeclone.users import key_store
from invokeclone.users.key_store import ApiKey, VerifiedKey
from invokeclone.users.signin import UNREADABLE

MARK = "ick_"
"""Prefix of every key, so that secret scanners can recognize leaked ones."""
RANDOM_BYTES = 32
PREFIX_LENGTH = len(MARK) + 6
"""Letters of a key that are stored to recognize it: 36 of its 256 bits."""
LONGEST_NAME = 100
USE_UPDATE_INTERVAL = timedelta(minutes=1)

_FORM = re.compile(r"ick_[A-Za-z0-9_-]{43}")
_log = log.get("users")


class BadName(BadRequest):
    """The name of the key is not allowed."""

    def __init__(self) -> None:
        super().__init__(f"The name of an API key must be one line of 1 to {LONGEST_NAME} characters")


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The active account of a key, with its current rights. Not a sign-in: it cannot be exchanged for a token."""

    user_id: str
    email: str
    display_name: str | None
    is_admin: bool


def is_key(text: str) -> bool:
    """Return whether a text has the format of a key."""
    return _FORM.fullmatch(text) is not None


def _hash_key(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


async def make(database: Database, user_id: str, name: str) -> str:
    """Create a key for an account and return it; only its hash is stored. Raise BadName or UserNotFound."""
    name = name.strip()
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise BadName
    text = MARK + secrets.token_urlsafe(RANDOM_BYTES)
    async with database.write() as connection:
        await key_store.add(connection, user_id, name=name, key_hash=_hash_key(text), prefix=text[:PREFIX_LENGTH])
    return text


async def list_all(database: Database, user_id: str | None = None) -> list[ApiKey]:
    """Return the keys of one account, or of all accounts, the oldest first."""
    async with database.read() as connection:
        return await key_store.list_all(connection, user_id)


async def revoke(database: Database, key_id: str) -> None:
    """Delete a key, with effect from the next request. Raise KeyNotFound."""
    async with database.write() as connection:
        await key_store.remove(connection, key_id)


async def has_keys(database: Database) -> bool:
    """Return whether there is any key; read from the database because another process may create the first one."""
    async with database.read() as connection:
        return await key_store.has_keys(connection)


async def verify(database: Database, text: str) -> KeyHolder | None:
    """Return the owner of a key; None if it is invalid, or its account is deleted or disabled."""
    if not is_key(text):
        return None
    async with database.read() as connection:
        key = await key_store.find(connection, _hash_key(text))
    if key is None:
        return None
    await _note_use(database, key)
    return KeyHolder(key.user_id, key.email, key.display_name, key.is_admin)


async def _note_use(database: Database, key: VerifiedKey) -> None:
    """Record the use of the key at most once per minute; a failed write does not reject the request."""
    if key.last_used_at is not None:
        age = datetime.now(UTC) - datetime.fromisoformat(key.last_used_at).replace(tzinfo=UTC)
        if abs(age) < USE_UPDATE_INTERVAL:
            return
    try:
        async with database.write() as connection:
            await key_store.note_use(connection, key.id, key.last_used_at)
    except UNREADABLE as error:
        _log.warning("cannot record the use of API key %s: %s", key.id, type(error).__name__)
