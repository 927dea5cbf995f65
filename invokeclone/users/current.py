"""Who is asking, and whether they may; in single-user mode everybody is `system`, an admin, and no row is read.

Whom a token or an API key belongs to is found once per request (`identified`, which the application runs before any route's own
dependencies, so that no request waits for a second connection while it holds one).
"""

from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from invokeclone.kit.errors import Forbidden, Unauthorized
from invokeclone.kit.requests import resources_of
from invokeclone.kit.resources import Resources
from invokeclone.users import keys, signin
from invokeclone.users.keys import KeyHolder
from invokeclone.users.signin import SignIn
from invokeclone.users.store import SYSTEM_ID

MEDIA_COOKIE = "invokeai_media_token"


class User(BaseModel, frozen=True):
    """The part of an account that rights are decided by."""

    user_id: str
    display_name: str | None = None
    email: str | None = None
    is_admin: bool = False


SYSTEM = User(user_id="system", display_name="System", email="system@system.invokeai", is_admin=True)


class NotSignedIn(Unauthorized):
    """There is no token, or none that is valid."""

    def __init__(self) -> None:
        """Say so, and not which."""
        super().__init__("Sign in first: the token is missing, invalid or no longer valid")


class AdminsOnly(Forbidden):
    """Only an admin may do this."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("Admin privileges required")


class SignInNeeded(Forbidden):
    """A key stands for its account, and may not change it or any other."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("An API key cannot do this: sign in with a password")


async def identify(connection: HTTPConnection) -> SignIn | KeyHolder | None:
    """Return who shows a token or an API key as bearer, None without a valid one, and in single-user mode.

    It serves requests and WebSockets.
    """
    needs = resources_of(connection)
    if not needs.settings.multiuser:
        return None
    return await _bearer(connection, needs)


async def _bearer(connection: HTTPConnection, needs: Resources) -> SignIn | KeyHolder | None:
    """Return whom the bearer stands for; a token is put on the request too, for the one that follows it."""
    connection.state.sign_in = None
    token = signin.bearer(connection.headers.get("authorization"))
    if token is None:
        return None
    if keys.is_key(token):
        holder = await keys.verify(needs.database, token)
        return holder if holder and holder.user_id != SYSTEM_ID else None
    sign_in = await signin.verify(needs.database, token)
    connection.state.sign_in = sign_in
    return sign_in


Identity = Annotated[SignIn | KeyHolder | None, Depends(identify)]


def as_user(identity: SignIn | KeyHolder) -> User:
    """Return the part of an account that rights are decided by."""
    return User(
        user_id=identity.user_id, display_name=identity.display_name, email=identity.email, is_admin=identity.is_admin
    )


def _require_user(identity: SignIn | KeyHolder | None) -> User:
    if identity is None:
        raise NotSignedIn
    return as_user(identity)


async def current_user(connection: HTTPConnection, identity: Identity) -> User:
    """Return the user of this request; raises NotSignedIn."""
    return _require_user(identity) if resources_of(connection).settings.multiuser else SYSTEM


CurrentUser = Annotated[User, Depends(current_user)]
"""Whoever asks."""


async def media_user(request: Request, identity: Identity) -> User:
    """Return the user of a request for a picture or video file, which a browser makes without headers of ours."""
    needs = resources_of(request)
    if not needs.settings.multiuser:
        return SYSTEM
    cookie = request.cookies.get(MEDIA_COOKIE)
    if identity is None and cookie:
        identity = await signin.verify(needs.database, cookie, media=True)
    return _require_user(identity)


MediaUser = Annotated[User, Depends(media_user)]
"""Whoever asks for a file, also by cookie."""


async def admin(user: CurrentUser) -> User:
    """Return the user of this request, an admin; raises NotSignedIn or AdminsOnly."""
    if not user.is_admin:
        raise AdminsOnly
    return user


Admin = Annotated[User, Depends(admin)]
"""Whoever asks, and is an admin."""


async def account(request: Request, identity: Identity) -> SignIn | KeyHolder:
    """Return whose token or key this is, in single-user mode too: an account is somebody's. Raises NotSignedIn."""
    needs = resources_of(request)
    if not needs.settings.multiuser:
        identity = await _bearer(request, needs)
    if identity is None:
        raise NotSignedIn
    return identity


CurrentAccount = Annotated[SignIn | KeyHolder, Depends(account)]
"""Whoever has an account and shows its token or a key."""


async def require_sign_in(identity: CurrentAccount) -> SignIn:
    """Return who signed in, in single-user mode too; raises NotSignedIn, or SignInNeeded for a key."""
    if isinstance(identity, KeyHolder):
        raise SignInNeeded
    return identity


SignedIn = Annotated[SignIn, Depends(require_sign_in)]
"""Whoever has an account and shows its token."""


async def require_admin_sign_in(sign_in: SignedIn) -> SignIn:
    """Return who signed in, an admin; raises NotSignedIn or AdminsOnly."""
    if not sign_in.is_admin:
        raise AdminsOnly
    return sign_in


SignedInAdmin = Annotated[SignIn, Depends(require_admin_sign_in)]
"""Whoever has an admin's account and shows its token."""
