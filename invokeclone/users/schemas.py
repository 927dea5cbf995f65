"""Request and response schemas of the account routes."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LONGEST_EMAIL = 254
LONGEST_LOCAL_PART = 64
LONGEST_LABEL = 63

_LOCAL = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*")
_LABEL = re.compile(r"[^\W_]([\w-]*[^\W_])?")


def _is_email(text: str) -> str:
    """Accept an address according to RFC 5321 with a domain that need not be public; its case is preserved."""
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
    """The server's account settings, needed before sign-in. The admin's address is not revealed."""

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
    """Credentials; `remember_me` requests a token valid for seven days instead of one."""

    email: Email
    password: str
    remember_me: bool = False


class LoginResponse(BaseModel):
    """A token, its lifetime in seconds, and its user."""

    token: str
    user: UserDTO
    expires_in: int


class LogoutResponse(BaseModel):
    """Confirmation that the cookie is deleted."""

    success: bool


class MediaCookieResponse(BaseModel):
    """Confirmation that the cookie is set."""

    success: bool


class GeneratePasswordResponse(BaseModel):
    """A random password."""

    password: str


class UserProfileUpdateRequest(BaseModel):
    """Changes to the own account; absent or null fields are unchanged. A new password needs the current one."""

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
    """Changes to an account; absent or null fields are unchanged."""

    display_name: str | None = None
    password: str | None = None
    is_admin: bool | None = None
    is_active: bool | None = None


MAX_QUOTA = 100_000_000


class QuotaState(BaseModel):
    """A quota, and how much of it is used."""

    limit: int | None = Field(description="The limit; null: none.")
    is_default: bool = Field(description="Whether the limit follows from the settings.")
    used: int = Field(default=0, description="How much of it is used.")


class QuotaDTO(BaseModel):
    """The quotas of a user."""

    user_id: str = Field(description="Id of the user.")
    pending_items: QuotaState = Field(description="Pending items in all queues.")
    images_per_day: QuotaState = Field(
        description="Images and videos of the current day in UTC, without intermediates and uploads."
    )


class QuotaChanges(BaseModel):
    """New limits of a user instead of the defaults; fields that are left out do not change."""

    model_config = ConfigDict(extra="forbid")

    pending_items: int | None = Field(default=None, ge=0, le=MAX_QUOTA, description="Pending items; null: no limit.")
    images_per_day: int | None = Field(default=None, ge=0, le=MAX_QUOTA, description="Images per day; null: no limit.")
