"""Errors of webhooks."""

from invokeclone.kit.errors import BadRequest, Forbidden, NotFound


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
