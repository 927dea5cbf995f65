"""The current user of a request and its role.

In single-user mode every user is `system`, an admin, without a database read. The owner of a token or an API key is
looked up once per request (`identify`, which the application runs before any route's own dependencies, so that no
request waits for a second connection while it holds one).
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
    """The fields of an account that access rights depend on."""

    user_id: str
    display_name: str | None = None
    email: str | None = None
    is_admin: bool = False


SYSTEM = User(user_id="system", display_name="System", email="system@system.invokeai", is_admin=True)


class NotSignedIn(Unauthorized):
    """The token is missing or invalid; the message does not reveal which."""

    def __init__(self) -> None:
        super().__init__("Sign in first: the token is missing, invalid or no longer valid")


class AdminsOnly(Forbidden):
    """Only an admin may do this."""

    def __init__(self) -> None:
        super().__init__("Admin privileges required")


class SignInNeeded(Forbidden):
    """An API key may not read or change accounts other than its own, nor change that."""

    def __init__(self) -> None:
        super().__init__("An API key cannot do this: sign in with a password")


async def identify(connection: HTTPConnection) -> SignIn | KeyHolder | None:
    """Return the owner of the bearer token or API key; None without a valid one, and in single-user mode.

    For requests and WebSockets.
    """
    needs = resources_of(connection)
    if not needs.settings.multiuser:
        return None
    return await _bearer(connection, needs)


async def _bearer(connection: HTTPConnection, needs: Resources) -> SignIn | KeyHolder | None:
    """Return the owner of the bearer token; a sign-in is also stored on the request, for renewing its token."""
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
    """Return the fields that access rights depend on."""
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
"""The user of the request."""


async def media_user(request: Request, identity: Identity) -> User:
    """Return the user of a request for an image or video file, which browsers send without an Authorization header."""
    needs = resources_of(request)
    if not needs.settings.multiuser:
        return SYSTEM
    cookie = request.cookies.get(MEDIA_COOKIE)
    if identity is None and cookie:
        identity = await signin.verify(needs.database, cookie, media=True)
    return _require_user(identity)


MediaUser = Annotated[User, Depends(media_user)]
"""The user of a request for a file, also authenticated by cookie."""


async def admin(user: CurrentUser) -> User:
    """Return the user of this request if it is an admin; raises NotSignedIn or AdminsOnly."""
    if not user.is_admin:
        raise AdminsOnly
    return user


Admin = Annotated[User, Depends(admin)]
"""The user of the request, who must be an admin."""


async def account(request: Request, identity: Identity) -> SignIn | KeyHolder:
    """Return the owner of the token or key, in single-user mode too. Raises NotSignedIn."""
    needs = resources_of(request)
    if not needs.settings.multiuser:
        identity = await _bearer(request, needs)
    if identity is None:
        raise NotSignedIn
    return identity


CurrentAccount = Annotated[SignIn | KeyHolder, Depends(account)]
"""The account of the request, by token or key."""


async def require_sign_in(identity: CurrentAccount) -> SignIn:
    """Return the sign-in of the request, in single-user mode too; raises NotSignedIn, or SignInNeeded for a key."""
    if isinstance(identity, KeyHolder):
        raise SignInNeeded
    return identity


SignedIn = Annotated[SignIn, Depends(require_sign_in)]
"""The sign-in of the request, by token only."""


async def require_admin_sign_in(sign_in: SignedIn) -> SignIn:
    """Return the sign-in of the request if it is an admin's; raises NotSignedIn or AdminsOnly."""
    if not sign_in.is_admin:
        raise AdminsOnly
    return sign_in


SignedInAdmin = Annotated[SignIn, Depends(require_admin_sign_in)]
"""The sign-in of the request, which must be an admin's."""
