"""Account events, for the servers only."""

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


class SignInAttemptEvent(Event):
    """A password attempt from an address, from its start; or its success, after which it does not count."""

    name: ClassVar[str] = "sign_in_attempt"
    audience: ClassVar[Audience] = "internal"

    address: str
    email: str
    succeeded: bool = False
