"""Operations on webhooks: users manage their own, administrators all."""

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.prepared_statements import Source
from invokeclone.kit.sql.transactions import Changes
from invokeclone.users import rights
from invokeclone.users.current import User
from invokeclone.webhooks import signing, store
from invokeclone.webhooks.errors import NotYourWebhook, TooManyWebhooks
from invokeclone.webhooks.schemas import (
    CreatedWebhook,
    Webhook,
    WebhookDelivery,
    WebhookRequest,
    WebhookTestResult,
)
from invokeclone.webhooks.sender import WebhookSender


async def create(resources: Resources, sender: WebhookSender, request: WebhookRequest, user: User) -> CreatedWebhook:
    """Create a webhook. Raises AddressRefused and TooManyWebhooks."""
    sender.web.check_address(request.url)
    secret, limit = signing.new_secret(), resources.settings.limits.webhooks

    async def add(connection: Changes) -> Webhook:
        if await store.count(connection, user.user_id) >= limit:
            raise TooManyWebhooks(limit)
        return await store.get(connection, await store.add(connection, user.user_id, request, secret))

    webhook = await resources.database.transact(add)
    return CreatedWebhook(**webhook.model_dump(), secret=secret)


async def get(source: Source, webhook_id: str, user: User) -> Webhook:
    """Return a webhook. Raises WebhookNotFound and NotYourWebhook."""
    webhook = await store.get(source, webhook_id)
    if not rights.owns(user, webhook.user_id):
        raise NotYourWebhook
    return webhook


async def remove(resources: Resources, webhook_id: str, user: User) -> None:
    """Delete a webhook. Raises WebhookNotFound and NotYourWebhook."""

    async def delete(connection: Changes) -> None:
        await get(connection, webhook_id, user)
        await store.remove(connection, webhook_id)

    await resources.database.transact(delete)


async def enable(resources: Resources, webhook_id: str, user: User) -> Webhook:
    """Let a disabled webhook receive events again. Raises WebhookNotFound and NotYourWebhook."""

    async def change(connection: Changes) -> Webhook:
        await get(connection, webhook_id, user)
        await store.enable(connection, webhook_id)
        return await store.get(connection, webhook_id)

    return await resources.database.transact(change)


async def test(resources: Resources, sender: WebhookSender, webhook_id: str, user: User) -> WebhookTestResult:
    """Send a test event to a webhook once. Raises WebhookNotFound, NotYourWebhook and TooManyTests."""
    webhook = await get(resources.database, webhook_id, user)
    return await sender.test(user.user_id, webhook.url, await store.get_secret(resources.database, webhook_id))


async def list_deliveries(source: Source, webhook_id: str, user: User) -> list[WebhookDelivery]:
    """Return the newest deliveries of a webhook. Raises WebhookNotFound and NotYourWebhook."""
    await get(source, webhook_id, user)
    return await store.list_deliveries(source, webhook_id)
