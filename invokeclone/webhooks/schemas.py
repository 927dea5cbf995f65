"""Request and response schemas of the webhook routes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

WebhookEvent = Literal["batch_done", "item_completed", "item_failed"]
EVENTS: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
LONGEST_URL = 2_000


def _with_zone(value: Any) -> Any:
    """Return the time of a row, which is in UTC without saying so."""
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value


Time = Annotated[datetime, BeforeValidator(_with_zone)]


class WebhookRequest(BaseModel):
    """A webhook to create."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=LONGEST_URL, description="HTTP or HTTPS URL that receives the events as POST requests.")
    events: list[WebhookEvent] = Field(
        default=["batch_done", "item_failed"], min_length=1, max_length=len(EVENTS), description="Events to send."
    )
    description: str = Field(default="", max_length=200, description="What the webhook is for.")


class Webhook(BaseModel):
    """A webhook without its secret."""

    webhook_id: str = Field(description="Id of the webhook.")
    user_id: str = Field(description="Id of its owner; it receives events of their items.")
    url: str = Field(description="URL that receives the events.")
    events: list[WebhookEvent] = Field(description="Events that are sent.")
    description: str = Field(description="What it is for.")
    created_at: Time = Field(description="Time of creation.")
    failing_since: Time | None = Field(description="Time of the first failed attempt after the last successful one.")
    disabled_at: Time | None = Field(description="Time since which nothing is sent.")
    disabled_reason: str | None = Field(description="Why nothing is sent.")


class CreatedWebhook(Webhook):
    """A new webhook with its secret, which no other response contains."""

    secret: str = Field(description="Key of the signatures: `whsec_` and base64.")


class WebhookDelivery(BaseModel):
    """An event for a webhook, and the state of its delivery."""

    delivery_id: str = Field(description="Id of the delivery, the header `webhook-id` of all its attempts.")
    event: WebhookEvent = Field(description="The event.")
    created_at: Time = Field(description="Time of the event.")
    attempts: int = Field(description="Number of attempts.")
    due_at: Time | None = Field(description="Time of the next attempt; null if there is none.")
    delivered_at: Time | None = Field(description="Time of the successful attempt.")
    failed_at: Time | None = Field(description="Time since which no more attempts are made.")
    response_status: int | None = Field(description="Status of the last response.")
    error: str | None = Field(description="Why the last attempt failed.")


class WebhookTestResult(BaseModel):
    """The result of a test."""

    delivered: bool = Field(description="Whether the URL responded with a status from 200 to 299.")
    response_status: int | None = Field(description="Status of the response, if there was one.")
    error: str | None = Field(description="Why it failed.")
