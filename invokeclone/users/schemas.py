"""What the account routes take and answer, field for field as clients know it."""

from pydantic import BaseModel


class SetupStatusResponse(BaseModel):
    """What a client must know before it can ask anybody to sign in."""

    setup_required: bool
    multiuser_enabled: bool
    strict_password_checking: bool
    admin_email: str | None = None
