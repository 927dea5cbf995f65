"""Account events, for the server itself only."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class UserAccessChangedEvent(Event):
    """The rights of an account have changed, or it was deleted."""

    name: ClassVar[str] = "user_access_changed"
    audience: ClassVar[Audience] = "internal"

    user_id: str
    is_admin: bool
    is_active: bool
    token_epoch: int
