"""Who is asking, and whether they may; in single-user mode everybody is `system`, an admin, and no row is read.

Whom a token belongs to is found once per request (`identified`, which the application runs before any route's own
dependencies, so that no request waits for a second connection while it holds one).
"""

from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel

from invokeclone.kit.errors import Forbidden, Unauthorized
from invokeclone.kit.requests import Needs
from invokeclone.users import signin
from invokeclone.users.signin import SignIn

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


async def identified(request: Request, needs: Needs) -> SignIn | None:
    """Return who signed in with this request's token, None without a valid one, and in single-user mode."""
    if not needs.settings.multiuser:
        return None
    return await _bearer(request, needs)


async def _bearer(request: Request, needs: Needs) -> SignIn | None:
    token = signin.bearer(request.headers.get("authorization"))
    found = await signin.verify(needs.database, token) if token else None
    request.state.sign_in = found
    return found


Identified = Annotated[SignIn | None, Depends(identified)]


def _user(found: SignIn | None) -> User:
    if found is None:
        raise NotSignedIn
    return User(user_id=found.user_id, display_name=found.display_name, email=found.email, is_admin=found.is_admin)


async def current_user(needs: Needs, found: Identified) -> User:
    """Return the user of this request; raises NotSignedIn."""
    return _user(found) if needs.settings.multiuser else SYSTEM


CurrentUser = Annotated[User, Depends(current_user)]
"""Whoever asks."""


async def media_user(request: Request, needs: Needs, found: Identified) -> User:
    """Return the user of a request for a picture or video file, which a browser makes without headers of ours."""
    if not needs.settings.multiuser:
        return SYSTEM
    cookie = request.cookies.get(MEDIA_COOKIE)
    if found is None and cookie:
        found = await signin.verify(needs.database, cookie, media=True)
    return _user(found)


MediaUser = Annotated[User, Depends(media_user)]
"""Whoever asks for a file, also by cookie."""


async def admin(user: CurrentUser) -> User:
    """Return the user of this request, an admin; raises NotSignedIn or AdminsOnly."""
    if not user.is_admin:
        raise AdminsOnly
    return user


Admin = Annotated[User, Depends(admin)]
"""Whoever asks, and is an admin."""


async def signed_in(request: Request, needs: Needs, found: Identified) -> SignIn:
    """Return who signed in, in single-user mode too: an account is somebody's. Raises NotSignedIn."""
    if not needs.settings.multiuser:
        found = await _bearer(request, needs)
    if found is None:
        raise NotSignedIn
    return found


SignedIn = Annotated[SignIn, Depends(signed_in)]
"""Whoever has an account and shows its token."""


async def signed_in_admin(found: SignedIn) -> SignIn:
    """Return who signed in, an admin; raises NotSignedIn or AdminsOnly."""
    if not found.is_admin:
        raise AdminsOnly
    return found


SignedInAdmin = Annotated[SignIn, Depends(signed_in_admin)]
"""Whoever has an admin's account and shows its token."""
