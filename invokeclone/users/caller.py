"""Who asks in another dialect: the places in which clients of other servers send a key, on a request or a WebSocket.

In single-user mode these doors are open until the first key is made, whatever a client sends (many insist on sending
something); from then on, and always in multi-user mode, somebody has to be known.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from invokeclone.kit.errors import Unauthorized
from invokeclone.kit.requests import Needs
from invokeclone.users import keys, signin
from invokeclone.users.current import SYSTEM, Identity, User, as_user
from invokeclone.users.store import SYSTEM_ID

LONGEST_HEADER = 1_024
KEY_HEADERS = ("api-key", "x-goog-api-key")
KEY_PARAMETER = "key"


class KeyNeeded(Unauthorized):
    """There is no API key, or none that is valid."""

    def __init__(self) -> None:
        """Say so, not which, and where one comes from."""
        super().__init__(
            "An API key is needed: it is missing, invalid or revoked. `invokeclone user key add` makes one"
        )


def key_of(connection: HTTPConnection) -> str | None:
    """Return the first text that has the form of a key, None when nothing has.

    Looked at are: a bearer, the password of Basic credentials (the user name when there is no password), the headers
    `api-key` (Azure) and `x-goog-api-key`, and `key` in the query (Gemini).
    """
    return next((text for text in _key_candidates(connection) if keys.is_key(text)), None)


def _key_candidates(connection: HTTPConnection) -> Iterator[str]:
    authorization = connection.headers.get("authorization")
    yield signin.bearer(authorization) or ""
    yield _basic(authorization) or ""
    for name in KEY_HEADERS:
        yield connection.headers.get(name, "").strip()
    yield connection.query_params.get(KEY_PARAMETER, "").strip()


def _basic(header: str | None) -> str | None:
    """Return the password of Basic credentials, or their user name without one; None when they cannot be read."""
    scheme, _, packed = (header or "").partition(" ")
    if scheme.lower() != "basic" or len(packed) > LONGEST_HEADER:
        return None
    try:
        user, _, password = base64.b64decode(packed.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return password or user


async def caller(connection: HTTPConnection, needs: Needs, identity: Identity) -> User:
    """Return who asks, by key, or in multi-user mode by a token as bearer too; raises KeyNeeded.

    In single-user mode whoever may ask is `system`.
    """
    multiuser = needs.settings.multiuser
    if multiuser and identity is not None:
        return as_user(identity)
    key = key_of(connection)
    holder = await keys.verify(needs.database, key) if key else None
    if not multiuser:
        if holder is None and await keys.has_keys(needs.database):
            raise KeyNeeded
        return SYSTEM
    if holder is None or holder.user_id == SYSTEM_ID:
        raise KeyNeeded
    return as_user(holder)


Caller = Annotated[User, Depends(caller)]
"""Whoever asks in another dialect. Stands before `Read` and `Write`: it reads the database on its own connection."""
