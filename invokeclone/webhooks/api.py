"""Routes of webhooks."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path

from invokeclone.kit.requests import Needs, Reads, service
from invokeclone.users import rights
from invokeclone.users.current import CurrentUser
from invokeclone.webhooks import service as webhooks
from invokeclone.webhooks import store
from invokeclone.webhooks.schemas import (
    CreatedWebhook,
    Webhook,
    WebhookDelivery,
    WebhookRequest,
    WebhookTestResult,
)
from invokeclone.webhooks.sender import WebhookSender

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"])

WebhookId = Annotated[str, Path(description="Id of the webhook.")]
Sender = Annotated[WebhookSender, Depends(service(WebhookSender))]


@router.get("/", operation_id="list_webhooks")
async def list_webhooks(user: CurrentUser, source: Reads) -> list[Webhook]:
    """List the own webhooks, or those of all users for an administrator."""
    return await store.list_all(source, rights.scope(user))


@router.post("/", operation_id="create_webhook", status_code=201)
async def create_webhook(
    needs: Needs, user: CurrentUser, sender: Sender, request: Annotated[WebhookRequest, Body()]
) -> CreatedWebhook:
    """Create a webhook for events of the own items; only this response contains its secret."""
    return await webhooks.create(needs, sender, request, user)


@router.get("/{webhook_id}", operation_id="get_webhook")
async def get_webhook(user: CurrentUser, source: Reads, webhook_id: WebhookId) -> Webhook:
    """Get a webhook."""
    return await webhooks.get(source, webhook_id, user)


@router.delete("/{webhook_id}", operation_id="delete_webhook", status_code=204)
async def delete_webhook(needs: Needs, user: CurrentUser, webhook_id: WebhookId) -> None:
    """Delete a webhook with its deliveries."""
    await webhooks.remove(needs, webhook_id, user)


@router.post("/{webhook_id}/enable", operation_id="enable_webhook")
async def enable_webhook(needs: Needs, user: CurrentUser, webhook_id: WebhookId) -> Webhook:
    """Let a webhook that was disabled after failures receive later events again."""
    return await webhooks.enable(needs, webhook_id, user)


@router.post("/{webhook_id}/test", operation_id="test_webhook")
async def test_webhook(needs: Needs, user: CurrentUser, sender: Sender, webhook_id: WebhookId) -> WebhookTestResult:
    """Send a signed event of the type `webhook_test` once, and return whether it was accepted."""
    return await webhooks.test(needs, sender, webhook_id, user)


@router.get("/{webhook_id}/deliveries", operation_id="list_webhook_deliveries")
async def list_webhook_deliveries(user: CurrentUser, source: Reads, webhook_id: WebhookId) -> list[WebhookDelivery]:
    """List the newest deliveries of a webhook, 100 at most, of the last seven days."""
    return await webhooks.list_deliveries(source, webhook_id, user)
