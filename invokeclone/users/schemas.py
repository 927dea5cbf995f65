"""What the account routes take and answer, field for field as clients know it."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel

LONGEST_EMAIL = 254
LONGEST_LOCAL_PART = 64
LONGEST_LABEL = 63

_LOCAL = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*")
_LABEL = re.compile(r"[^\W_]([\w-]*[^\W_])?")


def _is_email(text: str) -> str:
    """Accept an address as RFC 5321 has it, of a domain that need not be on the internet; letters stay as they are."""
    local, at, domain = text.rpartition("@")
    labels = domain.split(".")
    good = (
        at
        and len(text) <= LONGEST_EMAIL
        and len(local) <= LONGEST_LOCAL_PART
        and _LOCAL.fullmatch(local)
        and (len(labels) > 1 or domain.lower() == "localhost")
        and all(len(label) <= LONGEST_LABEL and "_" not in label and _LABEL.fullmatch(label) for label in labels)
    )
    if not good:
        raise ValueError("not an e-mail address")
    return text


Email = Annotated[str, AfterValidator(_is_email)]


class SetupStatusResponse(BaseModel):
    """What a client must know before it can ask anybody to sign in. The admin's address stays untold."""

    setup_required: bool
    multiuser_enabled: bool
    strict_password_checking: bool
    admin_email: str | None = None


class UserDTO(BaseModel):
    """An account, without its password."""

    user_id: str
    email: str
    display_name: str | None = None
    is_admin: bool = False
    is_active: bool = True
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None = None
    token_epoch: int = 0


class SetupRequest(BaseModel):
    """The first admin's account."""

    email: Email
    display_name: str | None = None
    password: str


class SetupResponse(BaseModel):
    """The first admin."""

    success: bool
    user: UserDTO


class LoginRequest(BaseModel):
    """Who signs in; `remember_me` asks for a token of seven days in place of one."""

    email: Email
    password: str
    remember_me: bool = False


class LoginResponse(BaseModel):
    """A token, for how many seconds it is good, and whose it is."""

    token: str
    user: UserDTO
    expires_in: int


class LogoutResponse(BaseModel):
    """That the cookie is gone."""

    success: bool


class MediaCookieResponse(BaseModel):
    """That the cookie is set."""

    success: bool


class GeneratePasswordResponse(BaseModel):
    """A random password."""

    password: str


class UserProfileUpdateRequest(BaseModel):
    """Changes to one's own account; what is absent or null stays. A new password needs the current one."""

    display_name: str | None = None
    current_password: str | None = None
    new_password: str | None = None


class AdminUserCreateRequest(BaseModel):
    """A new account."""

    email: Email
    display_name: str | None = None
    password: str
    is_admin: bool = False


class AdminUserUpdateRequest(BaseModel):
    """Changes to an account; what is absent or null stays."""

    display_name: str | None = None
    password: str | None = None
    is_admin: bool | None = None
    is_active: bool | None = None
