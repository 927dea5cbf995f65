"""From a token to the account behind it, as the database has it now; it knows no request and no socket."""

import asyncio
import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit import log
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.tables import app_state, users
from invokeclone.users import tokens
from invokeclone.users.tokens import Claims

SECRET = "jwt_secret"  # noqa: S105  (the key it is kept under)
LONGEST_TOKEN = 4_096
LOOKUPS = 3
LOOKUP_WAIT_S = 0.25
UNREADABLE = (SQLAlchemyError, sqlite3.Error, OSError)
"""What a database that cannot be read at the moment raises."""

_log = log.get("users")

_SECRET = PreparedStatement(select(app_state.c.value).where(app_state.c.key == SECRET))
_ACCOUNT = PreparedStatement(
    select(
        users.c.user_id, users.c.email, users.c.display_name, users.c.is_admin, users.c.is_active, users.c.token_epoch
    ).where(users.c.user_id == parameter("user_id"))
)


@dataclass(frozen=True, slots=True)
class SignIn:
    """An active account and the valid token it came with. `secret` signs the token that follows."""

    user_id: str
    email: str
    display_name: str | None
    is_admin: bool
    token_epoch: int
    remember_me: bool
    expires: int
    secret: str

    def token(self) -> str:
        """Return a new token for the same user, valid for a whole lifetime from now."""
        return tokens.make(self._claims(tokens.expiry(remember_me=self.remember_me)), self.secret)

    def media_token(self) -> str:
        """Return a token for the cookie: it opens files only, and ends when the token did that it came with."""
        return tokens.make(self._claims(self.expires, media=True), self.secret)

    def _claims(self, expires: int, *, media: bool = False) -> Claims:
        return Claims(
            self.user_id, self.email, self.is_admin, self.remember_me, self.token_epoch, expires=expires, media=media
        )


def bearer(header: str | None) -> str | None:
    """Return the token of an Authorization header, None when it holds none."""
    scheme, _, token = (header or "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and 0 < len(token) <= LONGEST_TOKEN else None


async def verify(database: Database, token: str, *, media: bool = False) -> SignIn | None:
    """Return who a token stands for; None when it is not valid, or its account is gone, closed or has revoked it.

    A cookie's token is one for files only: it is taken where `media` says so, and not as a bearer.
    """
    if len(token) > LONGEST_TOKEN:
        return None
    async with database.read() as connection:
        secret = await read_secret(connection)
        claims = tokens.read(token, secret) if secret else None
        if secret is None or claims is None or (claims.media and not media):
            return None
        return await _account(connection, claims, secret)


async def read_secret(connection: AsyncConnection) -> str | None:
    """Return the secret that tokens are signed with, None before the first token was made."""
    row = await _SECRET.first(connection)
    return str(row[0]) if row else None


async def _account(connection: AsyncConnection, claims: Claims, secret: str) -> SignIn | None:
    row = await _ACCOUNT.first(connection, user_id=claims.user_id)
    if row is None:
        return None
    user_id, email, display_name, is_admin, is_active, epoch = row
    if not is_active or epoch != claims.token_epoch:
        return None
    return SignIn(
        user_id=user_id,
        email=email,
        display_name=display_name,
        is_admin=bool(is_admin),
        token_epoch=epoch,
        remember_me=claims.remember_me,
        expires=claims.expires,
        secret=secret,
    )


class AccountStatus(NamedTuple):
    """What an account is at the moment."""

    is_active: bool
    is_admin: bool
    token_epoch: int


async def account_status(database: Database, user_id: str) -> AccountStatus | None:
    """Return what an account is; None when it is gone."""
    async with database.read() as connection:
        row = await _ACCOUNT.first(connection, user_id=user_id)
    return AccountStatus(bool(row[4]), bool(row[3]), int(row[5])) if row else None


async def may_run(database: Database, user_id: str) -> bool:
    """Tell whether an account is there and active; also false when the database cannot tell, asked three times."""
    for attempts_left in reversed(range(LOOKUPS)):
        try:
            status = await account_status(database, user_id)
        except UNREADABLE as error:
            _log.warning("cannot read whether user %s may run items: %s", user_id, error)
            if attempts_left:
                await asyncio.sleep(LOOKUP_WAIT_S)
        else:
            return status is not None and status.is_active
    return False
