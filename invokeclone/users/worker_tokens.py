"""Tokens of workers on other machines: a worker with one runs queue items of all users, so only operators create them.

They are stored as API keys are (`keys.py`), have a prefix of their own, and expire unless they were created without end.
"""

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import delete, insert, or_, select, update

from invokeclone.kit.errors import BadRequest, NotFound, Unauthorized
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.kit.times import format_time, now
from invokeclone.tables import worker_tokens

MARK = "icw_"
"""Prefix of every token, so that secret scanners can recognize leaked ones."""
PREFIX_LENGTH = len(MARK) + 6
LONGEST_NAME = 100
DEFAULT_DAYS = 365
MAX_DAYS = 3650

_FORM = re.compile(r"icw_[A-Za-z0-9_-]{43}")
_columns = worker_tokens.c
_UNEXPIRED = or_(_columns.expires_at.is_(None), _columns.expires_at > parameter("at"))
_VALID = PreparedStatement(
    select(_columns.id, _columns.name).where(_columns.token_hash == parameter("token_hash"), _UNEXPIRED)
)
_STILL_VALID = PreparedStatement(select(_columns.id).where(_columns.id == parameter("id"), _UNEXPIRED))


class InvalidToken(Unauthorized):
    """The token of a worker is missing, wrong, expired or revoked."""

    def __init__(self) -> None:
        super().__init__(
            "The worker token is missing, wrong, expired or revoked; create one on the server with "
            "`invokeclone worker token create NAME`"
        )


class BadTokenName(BadRequest):
    """The name of the token is not allowed."""

    def __init__(self) -> None:
        super().__init__(f"The name of a worker token must be one line of 1 to {LONGEST_NAME} characters")


class TokenNotFound(NotFound):
    """No worker token has this id or prefix, or several have the prefix."""

    def __init__(self, token: str) -> None:
        super().__init__(
            f"There is not exactly one worker token {token}; `invokeclone worker token list` shows the ids"
        )


class WorkerToken(NamedTuple):
    """A token that a worker presented."""

    id: str
    name: str


class StoredToken(NamedTuple):
    """A stored token. Times are in the format of `kit/times.py`."""

    id: str
    name: str
    prefix: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


async def create(database: Database, name: str, days: int | None = DEFAULT_DAYS) -> str:
    """Create a token that is valid for `days` (None: until revoked) and return it. Raises BadTokenName."""
    name = name.strip()
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise BadTokenName
    text = MARK + secrets.token_urlsafe(32)
    row = {
        "id": str(uuid4()),
        "name": name,
        "token_hash": _hash(text),
        "prefix": text[:PREFIX_LENGTH],
        "created_at": now(),
        "expires_at": None if days is None else format_time(datetime.now(UTC) + timedelta(days=days)),
    }
    async with database.write() as connection:
        await connection.execute(insert(worker_tokens).values(row))
    return text


async def list_all(database: Database) -> list[StoredToken]:
    """Return all tokens, the oldest first."""
    fields = [_columns[name] for name in StoredToken._fields]
    async with database.read() as connection:
        rows = await connection.execute(select(*fields).order_by(_columns.created_at, _columns.id))
    return [StoredToken(*row) for row in rows]


async def revoke(database: Database, token: str) -> StoredToken:
    """Delete the token with this id or prefix; its workers are disconnected. Raises TokenNotFound."""
    matches = [stored for stored in await list_all(database) if token in (stored.id, stored.prefix)]
    if len(matches) != 1:
        raise TokenNotFound(token)
    async with database.write() as connection:
        await connection.execute(delete(worker_tokens).where(_columns.id == matches[0].id))
    return matches[0]


async def verify(database: Database, text: str | None) -> WorkerToken:
    """Return the token with this text. Raises InvalidToken."""
    if text is None or not _FORM.fullmatch(text):
        raise InvalidToken
    row = await _VALID.first(database, token_hash=_hash(text), at=now())
    if row is None:
        raise InvalidToken
    return WorkerToken(*row)


async def is_valid(database: Database, token: WorkerToken) -> bool:
    """Return whether a token that was presented before is still valid."""
    return await _STILL_VALID.first(database, id=token.id, at=now()) is not None


async def note_use(database: Database, token: WorkerToken) -> None:
    """Record that a worker has joined with a token."""
    async with database.write() as connection:
        await connection.execute(update(worker_tokens).where(_columns.id == token.id).values(last_used_at=now()))
