"""Client state routes: a per-user store of texts by key. The queue id in the path is ignored."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query

from invokeclone.kit.requests import Read, Write
from invokeclone.users import client_state
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1/client_state", tags=["client_state"])

QueueId = Annotated[str, Path(description="The queue's id; ignored.")]
Key = Annotated[str, Query(description="The key of the text.")]
NOTHING: dict[int | str, dict[str, Any]] = {204: {"description": "Done."}}


@router.get("/{queue_id}/get_by_key")
async def get_client_state_by_key(connection: Read, user: CurrentUser, queue_id: QueueId, key: Key) -> str | None:  # noqa: ARG001
    """Get the text under a key, or null."""
    return await client_state.get(connection, user.user_id, key)


@router.get("/{queue_id}/get_keys_by_prefix")
async def get_client_state_keys_by_prefix(
    connection: Read,
    user: CurrentUser,
    queue_id: QueueId,  # noqa: ARG001
    prefix: Annotated[str, Query(description="Prefix of the keys.")],
) -> list[str]:
    """List the keys that begin with a prefix."""
    return await client_state.keys(connection, user.user_id, prefix)


@router.post("/{queue_id}/set_by_key")
async def set_client_state(
    connection: Write,
    user: CurrentUser,
    queue_id: QueueId,  # noqa: ARG001
    key: Key,
    value: Annotated[str, Body(description="The text: a JSON string, or the plain text of a body that is not JSON.")],
) -> str:
    """Store a text under a key, replacing an earlier one; returns the text."""
    await client_state.set_values(connection, user.user_id, {key: value})
    return value


@router.post("/{queue_id}/delete_by_key", responses=NOTHING)
async def delete_client_state_by_key(connection: Write, user: CurrentUser, queue_id: QueueId, key: Key) -> None:  # noqa: ARG001
    """Delete the text under a key."""
    await client_state.remove(connection, user.user_id, key)


@router.post("/{queue_id}/delete", responses=NOTHING)
async def delete_client_state(connection: Write, user: CurrentUser, queue_id: QueueId) -> None:  # noqa: ARG001
    """Delete every text of the user."""
    await client_state.clear(connection, user.user_id)
