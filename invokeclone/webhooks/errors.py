"""Errors of webhooks."""

from typing import ClassVar

from invokeclone.kit.errors import BadRequest, Forbidden, NotFound, TooMany


class WebhookNotFound(NotFound):
    """No webhook has this id."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"no webhook has the id {webhook_id!r}")


class NotYourWebhook(Forbidden):
    """The webhook belongs to another user."""

    def __init__(self) -> None:
        super().__init__("the webhook belongs to another user")


class TooManyWebhooks(BadRequest):
    """The user has as many webhooks as allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a user may have at most {limit} webhooks (setting limits.webhooks): delete some first")


class TooManyTests(TooMany):
    """Too many tests of webhooks are running."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}

    def __init__(self, limit: int, whose: str) -> None:
        super().__init__(f"{limit} tests of {whose} are running; try again when they have ended")
