"""Authentication for the compatibility APIs: where clients of other servers send a key, on a request or a WebSocket.

In single-user mode no key is needed until the first key is created, even if the client sends one (many always do);
after that, and always in multi-user mode, a valid key is required.
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
    """The API key is missing or invalid; the message does not reveal which."""

    def __init__(self) -> None:
        super().__init__(
            "An API key is needed: it is missing, invalid or revoked. `invokeclone user key add` creates one"
        )


def key_of(connection: HTTPConnection) -> str | None:
    """Return the first text that has the format of a key, None if there is none.

    Checked in order: a bearer token, the password of Basic credentials (the user name without a password), the headers
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
    """Return the password of Basic credentials, or the user name without one; None when they are malformed."""
    scheme, _, packed = (header or "").partition(" ")
    if scheme.lower() != "basic" or len(packed) > LONGEST_HEADER:
        return None
    try:
        user, _, password = base64.b64decode(packed.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return password or user


async def caller(connection: HTTPConnection, needs: Needs, identity: Identity) -> User:
    """Return the user by key, or in multi-user mode by bearer token too; raises KeyNeeded.

    In single-user mode the user is always `system`.
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
"""The user of a compatibility API request. Declare it before `Read` and `Write`: it reads the database separately."""
