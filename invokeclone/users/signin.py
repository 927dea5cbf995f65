"""Verification of tokens against the current state of the account."""

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

SECRET = "jwt_secret"  # noqa: S105  (the key in `app_state`)
LONGEST_TOKEN = 4_096
LOOKUPS = 3
LOOKUP_WAIT_S = 0.25
UNREADABLE = (SQLAlchemyError, sqlite3.Error, OSError)
"""Errors of a database that cannot be read at the moment."""

_log = log.get("users")

_SECRET = PreparedStatement(select(app_state.c.value).where(app_state.c.key == SECRET))
_ACCOUNT = PreparedStatement(
    select(
        users.c.user_id, users.c.email, users.c.display_name, users.c.is_admin, users.c.is_active, users.c.token_epoch
    ).where(users.c.user_id == parameter("user_id"))
)


@dataclass(frozen=True, slots=True)
class SignIn:
    """An active account with its valid token. `secret` signs the next token."""

    user_id: str
    email: str
    display_name: str | None
    is_admin: bool
    token_epoch: int
    remember_me: bool
    expires: int
    secret: str

    def token(self) -> str:
        """Return a new token for the same user, valid for a full lifetime from now."""
        return tokens.make(self._claims(tokens.expiry(remember_me=self.remember_me)), self.secret)

    def media_token(self) -> str:
        """Return a token for the cookie: it gives access to files only, and expires with the current token."""
        return tokens.make(self._claims(self.expires, media=True), self.secret)

    def _claims(self, expires: int, *, media: bool = False) -> Claims:
        return Claims(
            self.user_id, self.email, self.is_admin, self.remember_me, self.token_epoch, expires=expires, media=media
        )


def bearer(header: str | None) -> str | None:
    """Return the token of an Authorization header, None if there is none."""
    scheme, _, token = (header or "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and 0 < len(token) <= LONGEST_TOKEN else None


async def verify(database: Database, token: str, *, media: bool = False) -> SignIn | None:
    """Return the sign-in of a token; None if it is invalid, or its account is deleted, disabled or has revoked it.

    The cookie's token is for files only: it is accepted with `media`, and never as a bearer token.
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
    """Return the secret that signs tokens, None before the first token is created."""
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
    """Current state of an account."""

    is_active: bool
    is_admin: bool
    token_epoch: int


async def account_status(database: Database, user_id: str) -> AccountStatus | None:
    """Return the current state of an account; None when it is deleted."""
    async with database.read() as connection:
        row = await _ACCOUNT.first(connection, user_id=user_id)
    return AccountStatus(bool(row[4]), bool(row[3]), int(row[5])) if row else None


async def may_run(database: Database, user_id: str) -> bool:
    """Return whether an account exists and is active; false when the database cannot be read in `LOOKUPS` attempts."""
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
