"""What accounts tell of, inside the server: nobody outside hears it."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class UserAccessChangedEvent(Event):
    """What an account may do has changed, or whether it is there at all."""

    name: ClassVar[str] = "user_access_changed"
    audience: ClassVar[Audience] = "internal"

    user_id: str
    is_admin: bool
    is_active: bool
    token_epoch: int
