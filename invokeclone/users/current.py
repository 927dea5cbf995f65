"""Who is asking; in single-user mode everybody is `system`, an admin."""

from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel

from invokeclone.kit.errors import Forbidden


class User(BaseModel, frozen=True):
    """The part of an account that rights are decided by."""

    user_id: str
    display_name: str | None = None
    email: str | None = None
    is_admin: bool = False


SYSTEM = User(user_id="system", display_name="System", email="system@system.invokeai", is_admin=True)


async def current_user() -> User:
    """Return the user of this request."""
    return SYSTEM


CurrentUser = Annotated[User, Depends(current_user)]
"""Whoever asks."""


async def media_user(user: CurrentUser) -> User:
    """Return the user of a request for a picture or video file, which a browser makes without headers of ours."""
    return user


MediaUser = Annotated[User, Depends(media_user)]
"""Whoever asks for a file, also by cookie."""


class AdminsOnly(Forbidden):
    """Only an admin may do this."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("Admin privileges required")


async def admin(user: CurrentUser) -> User:
    """Return the user of this request, an admin; raises AdminsOnly."""
    if not user.is_admin:
        raise AdminsOnly
    return user


Admin = Annotated[User, Depends(admin)]
"""Whoever asks, and is an admin."""
