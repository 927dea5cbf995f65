"""Who is asking; in single-user mode everybody is `system`, an admin."""

from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel


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
