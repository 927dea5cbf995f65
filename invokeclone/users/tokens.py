"""Tokens (JWT): creating and verifying them.

A token only identifies its account; current rights are read from the database for each request.
"""

import secrets
import time
from dataclasses import dataclass

ALGORITHM = "HS256"
DAY_S = 86_400
LIFETIME_S = DAY_S
REMEMBERED_S = 7 * DAY_S
REQUIRED = ["user_id", "email", "is_admin", "remember_me", "token_epoch", "exp"]
MEDIA = "media"


@dataclass(frozen=True, slots=True)
class Claims:
    """Content of a token. `media`: it gives access to image and video files only (the cookie's)."""

    user_id: str
    email: str
    is_admin: bool
    remember_me: bool
    token_epoch: int
    expires: int
    media: bool = False


def new_secret() -> str:
    """Return a new secret for signing tokens."""
    return secrets.token_urlsafe(48)


def lifetime(*, remember_me: bool) -> int:
    """Return the lifetime of a new token in seconds."""
    return REMEMBERED_S if remember_me else LIFETIME_S


def expiry(*, remember_me: bool) -> int:
    """Return the expiry of a token created now, in seconds since the epoch."""
    return int(time.time()) + lifetime(remember_me=remember_me)


def make(claims: Claims, secret: str) -> str:
    """Return the signed token."""
    import jwt  # imported on first sign-in to keep startup fast

    body = {
        "user_id": claims.user_id,
        "email": claims.email,
        "is_admin": claims.is_admin,
        "remember_me": claims.remember_me,
        "token_epoch": claims.token_epoch,
        "exp": claims.expires,
    }
    return jwt.encode(body | ({"use": MEDIA} if claims.media else {}), secret, ALGORITHM)


def read(token: str, secret: str) -> Claims | None:
    """Return the content of a token, None unless it is signed with `secret`, complete and not expired."""
    import jwt

    try:
        body = jwt.decode(token, secret, algorithms=[ALGORITHM], options={"require": REQUIRED})
    except (jwt.InvalidTokenError, UnicodeError):
        return None
    epoch, user_id = body["token_epoch"], body["user_id"]
    if not isinstance(user_id, str) or type(epoch) is not int:
        return None
    return Claims(
        user_id=user_id,
        email=str(body["email"]),
        is_admin=bool(body["is_admin"]),
        remember_me=bool(body["remember_me"]),
        token_epoch=epoch,
        expires=int(body["exp"]),
        media=body.get("use") == MEDIA,
    )
