"""API keys: what a program shows instead of a token, good until it is revoked.

A key is 32 random bytes, so a fast hash keeps it as safe as a slow one would: no one can try 2^256 of them, and no list of
likely ones exists. That makes looking one up a single SELECT by an index, of which the timing tells nothing of any use: what is
compared is the hash.
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
"""What every key begins with, so that those who look for leaked secrets know one."""
RANDOM_BYTES = 32
PREFIX_LENGTH = len(MARK) + 6
"""How many letters of a key are kept to know it by: of its 256 bits, 36."""
LONGEST_NAME = 100
USE_UPDATE_INTERVAL = timedelta(minutes=1)

_FORM = re.compile(r"ick_[A-Za-z0-9_-]{43}")
_log = log.get("users")


class BadName(BadRequest):
    """A key cannot be called so."""

    def __init__(self) -> None:
        super().__init__(f"The name of an API key is one line of 1 to {LONGEST_NAME} characters")


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The active account that a key stands for, with its present rights. It is no sign-in: no token follows from it."""

    user_id: str
    email: str
    display_name: str | None
    is_admin: bool


def is_key(text: str) -> bool:
    """Tell whether a text has the form of a key, whatever it opens."""
    return _FORM.fullmatch(text) is not None


def _hash_key(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


async def make(database: Database, user_id: str, name: str) -> str:
    """Make a key of an account's and return it; it can be read nowhere afterwards. Raise BadName or UserNotFound."""
    name = name.strip()
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise BadName
    text = MARK + secrets.token_urlsafe(RANDOM_BYTES)
    async with database.write() as connection:
        await key_store.add(connection, user_id, name=name, key_hash=_hash_key(text), prefix=text[:PREFIX_LENGTH])
    return text


async def list_all(database: Database, user_id: str | None = None) -> list[ApiKey]:
    """Return the keys of one account, or of all, the oldest first."""
    async with database.read() as connection:
        return await key_store.list_all(connection, user_id)


async def revoke(database: Database, key_id: str) -> None:
    """Delete a key: it opens nothing from the next request on. Raise KeyNotFound."""
    async with database.write() as connection:
        await key_store.remove(connection, key_id)


async def has_keys(database: Database) -> bool:
    """Tell whether there is a key at all, as the database has it now: another process may make the first one."""
    async with database.read() as connection:
        return await key_store.has_keys(connection)


async def verify(database: Database, text: str) -> KeyHolder | None:
    """Return whose key this is; None when it is none, or its account is gone or closed."""
    if not is_key(text):
        return None
    async with database.read() as connection:
        key = await key_store.find(connection, _hash_key(text))
    if key is None:
        return None
    await _note_use(database, key)
    return KeyHolder(key.user_id, key.email, key.display_name, key.is_admin)


async def _note_use(database: Database, key: VerifiedKey) -> None:
    """Write when the key was used, if a minute has gone by; a database that takes no write now is no reason to refuse."""
    if key.last_used_at is not None:
        age = datetime.now(UTC) - datetime.fromisoformat(key.last_used_at).replace(tzinfo=UTC)
        if abs(age) < USE_UPDATE_INTERVAL:
            return
    try:
        async with database.write() as connection:
            await key_store.note_use(connection, key.id, key.last_used_at)
    except UNREADABLE as error:
        _log.warning("cannot write when API key %s was used: %s", key.id, type(error).__name__)
