"""Routes of the queue. Items are returned as JSON text built from their rows, without parsing sessions."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response
from starlette.responses import StreamingResponse

from invokeclone.kit.config.limits import check_prompt
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.requests import LATER, RUNNING_WORKERS, Needs, Reads
from invokeclone.queue import batch_json, counts, generation, processor, service, store
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.capacity import QueueFull
from invokeclone.queue.generation import GenerationRequest
from invokeclone.queue.schemas import (
    Batch,
    BatchStatus,
    CancelAllExceptCurrentResult,
    CancelByBatchIDsResult,
    CancelByDestinationResult,
    ClearResult,
    DeleteAllExceptCurrentResult,
    DeleteByDestinationResult,
    EnqueueBatchResult,
    ItemIdsResult,
    MoveItemsRequest,
    PruneResult,
    RetryItemsResult,
    SessionProcessorStatus,
    SessionQueueAndProcessorStatus,
    SessionQueueCountsByDestination,
    SessionQueueItem,
    SessionQueueItemSummary,
    ValidationRunData,
)
from invokeclone.users import rights
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1/queue", tags=["queue"])

QueueId = Annotated[str, Path(description="Name of the queue: an arbitrary label, which need not be created.")]
ItemId = Annotated[int, Path(description="Id of the item.")]
ItemIds = Annotated[list[int], Body(embed=True, max_length=1000, description="Ids of the items.")]
Destination = Annotated[str, Query(description="Destination of the items.")]


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


@router.post(
    "/{queue_id}/enqueue_batch",
    operation_id="enqueue_batch",
    response_model=EnqueueBatchResult,
    responses={201: {"model": EnqueueBatchResult}},
)
async def enqueue_batch(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    batch: Annotated[Batch, LATER, Body(description="The batch to run.")],
    prepend: Annotated[bool, Body(description="Whether to run it before all pending items, or all own ones.")] = False,
    validation_run_data: Annotated[  # noqa: ARG001  (older clients send it)
        ValidationRunData | None, Body(description="Ignored.")
    ] = None,
) -> Response:
    """Enqueue a batch: an item for each combination of its data, `runs` times."""
    checked = await batch_json.read_batch(batch, needs.settings.limits)
    result = await service.enqueue(needs, queue_id, checked, prepend=prepend, user=user)
    return _json(await batch_json.dump_result(result))


@router.post(
    "/{queue_id}/enqueue_prompt",
    operation_id="enqueue_prompt",
    response_model=EnqueueBatchResult,
    dependencies=[RUNNING_WORKERS],
)
async def enqueue_prompt(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    request: Annotated[GenerationRequest, Body(description="The images to generate.")],
    prepend: Annotated[bool, Query(description="Whether to run it before all pending items, or all own ones.")] = False,
) -> Response:
    """Enqueue images of a prompt, without a graph; missing settings default to those of the model.

    Responds with 429 if the queue has no room for any of them, and with 503 while no worker is running.
    """
    for what, text in request.texts():
        check_prompt(text, needs.settings.limits, what)
    async with needs.database.read() as connection:
        await generation.require_images(connection, user, request)
    resolved = await generation.resolve_with_images(needs, request)
    batch = resolved.batch(origin="prompt")
    result = await service.enqueue(needs, queue_id, batch, prepend=prepend, user=user)
    if not result.enqueued:
        raise QueueFull
    return _json(result.model_dump_json())


@router.get("/{queue_id}/list_all", operation_id="list_all_queue_items", response_model=list[SessionQueueItem])
async def list_all_queue_items(
    user: CurrentUser,
    source: Reads,
    queue_id: QueueId,
    destination: Annotated[str | None, Query(description="List only items with this destination.")] = None,
) -> Response:
    """List all items, the highest priority first."""
    viewer = rights.scope(user)
    item_ids = await store.list_order(source, queue_id, destination, viewer)
    if len(item_ids) <= store.CHUNK_ITEMS:
        return _json(await store.get_many_json(source, queue_id, item_ids, viewer))
    return StreamingResponse(store.stream_json(source, queue_id, item_ids, viewer), media_type="application/json")


@router.get("/{queue_id}/item_ids", operation_id="get_queue_item_ids")
async def get_queue_item_ids(
    _user: CurrentUser,
    source: Reads,
    queue_id: QueueId,
    order_dir: Annotated[SQLiteDirection, Query(description="Order by time of creation.")] = (
        SQLiteDirection.Descending
    ),
) -> ItemIdsResult:
    """List the ids of all items by time of creation."""
    newest_first = order_dir is SQLiteDirection.Descending
    item_ids = await store.list_ids(source, queue_id, newest_first=newest_first)
    return ItemIdsResult(item_ids=item_ids, total_count=len(item_ids))


@router.get("/{queue_id}/pending_item_ids", operation_id="get_pending_queue_item_ids")
async def get_pending_queue_item_ids(_user: CurrentUser, source: Reads, queue_id: QueueId) -> ItemIdsResult:
    """List the ids of the pending items by priority, the first to run first."""
    item_ids = await store.list_pending(source, queue_id)
    return ItemIdsResult(item_ids=item_ids, total_count=len(item_ids))


@router.post(
    "/{queue_id}/items_by_ids", operation_id="get_queue_items_by_item_ids", response_model=list[SessionQueueItem]
)
async def get_queue_items_by_item_ids(
    user: CurrentUser, source: Reads, queue_id: QueueId, item_ids: ItemIds
) -> Response:
    """Get items in the order of the given ids; unknown ids are skipped."""
    return _json(await store.get_many_json(source, queue_id, item_ids, rights.scope(user)))


@router.post(
    "/{queue_id}/item_summaries_by_ids",
    operation_id="get_queue_item_summaries_by_ids",
    response_model=list[SessionQueueItemSummary],
)
async def get_queue_item_summaries_by_ids(
    user: CurrentUser, source: Reads, queue_id: QueueId, item_ids: ItemIds
) -> Response:
    """Get items without their sessions, in the order of the given ids; unknown ids are skipped."""
    return _json(await store.get_summaries_json(source, queue_id, item_ids, rights.scope(user)))


@router.put("/{queue_id}/processor/resume", operation_id="resume")
async def resume(needs: Needs, user: CurrentUser, queue_id: QueueId) -> SessionProcessorStatus:  # noqa: ARG001
    """Resume the workers, for all queues."""
    return await processor.resume(needs, user=user)


@router.put("/{queue_id}/processor/pause", operation_id="pause")
async def pause(needs: Needs, user: CurrentUser, queue_id: QueueId) -> SessionProcessorStatus:  # noqa: ARG001
    """Pause the workers, for all queues; running items are completed."""
    return await processor.pause(needs, user=user)


@router.put("/{queue_id}/cancel_all_except_current", operation_id="cancel_all_except_current")
async def cancel_all_except_current(needs: Needs, user: CurrentUser, queue_id: QueueId) -> CancelAllExceptCurrentResult:
    """Cancel all pending and waiting items."""
    canceled = await service.cancel_idle(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return CancelAllExceptCurrentResult(canceled=canceled)


@router.put("/{queue_id}/delete_all_except_current", operation_id="delete_all_except_current")
async def delete_all_except_current(needs: Needs, user: CurrentUser, queue_id: QueueId) -> DeleteAllExceptCurrentResult:
    """Delete all pending and waiting items."""
    deleted = await service.delete_idle(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return DeleteAllExceptCurrentResult(deleted=deleted)


@router.put("/{queue_id}/cancel_by_batch_ids", operation_id="cancel_by_batch_ids")
async def cancel_by_batch_ids(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    batch_ids: Annotated[list[str], Body(embed=True, description="Ids of the batches.")],
) -> CancelByBatchIDsResult:
    """Cancel the items of some batches."""
    items = ItemFilter(queue_id=queue_id, batch_ids=batch_ids, owner=rights.scope(user))
    return CancelByBatchIDsResult(canceled=await service.cancel_many(needs, items))


@router.put("/{queue_id}/cancel_by_destination", operation_id="cancel_by_destination")
async def cancel_by_destination(
    needs: Needs, user: CurrentUser, queue_id: QueueId, destination: Destination
) -> CancelByDestinationResult:
    """Cancel the items with a destination."""
    items = ItemFilter(queue_id=queue_id, destination=destination, owner=rights.scope(user))
    return CancelByDestinationResult(canceled=await service.cancel_many(needs, items))


@router.put("/{queue_id}/retry_items_by_id", operation_id="retry_items_by_id")
async def retry_items_by_id(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    item_ids: Annotated[list[int], Body(description="Ids of the items.")],
) -> RetryItemsResult:
    """Enqueue failed and canceled items again; other items are skipped."""
    return await service.retry(needs, queue_id, item_ids, user=user)


@router.put("/{queue_id}/move_items_by_id", operation_id="move_items_by_id")
async def move_items_by_id(needs: Needs, user: CurrentUser, queue_id: QueueId, body: MoveItemsRequest) -> ItemIdsResult:
    """Move pending items before or after another one, to the front or to the end; other items are skipped.

    Users move their items among their own, administrators among all. Returns the ids of all pending items in order.
    """
    order = await service.move(needs, queue_id, body.item_ids, body.position, user=user)
    return ItemIdsResult(item_ids=order, total_count=len(order))


@router.put("/{queue_id}/clear", operation_id="clear")
async def clear(needs: Needs, user: CurrentUser, queue_id: QueueId) -> ClearResult:
    """Delete all items; running items are canceled first."""
    deleted = await service.clear(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return ClearResult(deleted=deleted)


@router.put("/{queue_id}/prune", operation_id="prune")
async def prune(needs: Needs, user: CurrentUser, queue_id: QueueId) -> PruneResult:
    """Delete the completed, failed and canceled items."""
    deleted = await service.prune(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return PruneResult(deleted=deleted)


@router.get("/{queue_id}/current", operation_id="get_current_queue_item", response_model=SessionQueueItem | None)
async def get_current_queue_item(user: CurrentUser, source: Reads, queue_id: QueueId) -> Response:
    """Get a running item, or null."""
    return _json(await store.current_json(source, queue_id, rights.scope(user)))


@router.get("/{queue_id}/next", operation_id="get_next_queue_item", response_model=SessionQueueItem | None)
async def get_next_queue_item(user: CurrentUser, source: Reads, queue_id: QueueId) -> Response:
    """Get the first pending item, or null."""
    return _json(await store.next_json(source, queue_id, rights.scope(user)))


@router.get("/{queue_id}/status", operation_id="get_queue_status")
async def get_queue_status(needs: Needs, user: CurrentUser, queue_id: QueueId) -> SessionQueueAndProcessorStatus:
    """Get the status of the queue and of the workers."""
    return await processor.status(needs, queue_id, user=user)


@router.get("/{queue_id}/b/{batch_id}/status", operation_id="get_batch_status")
async def get_batch_status(
    user: CurrentUser,
    source: Reads,
    queue_id: QueueId,
    batch_id: Annotated[str, Path(description="Id of the batch.")],
) -> BatchStatus:
    """Get the status of a batch; for an unknown batch all counts are 0."""
    return await counts.of_batch(source, queue_id, batch_id, rights.scope(user))


@router.get("/{queue_id}/counts_by_destination", operation_id="counts_by_destination")
async def counts_by_destination(
    user: CurrentUser, source: Reads, queue_id: QueueId, destination: Destination
) -> SessionQueueCountsByDestination:
    """Count the items with a destination by status."""
    return await counts.of_destination(source, queue_id, destination, rights.scope(user))


@router.get("/{queue_id}/i/{item_id}", operation_id="get_queue_item", response_model=SessionQueueItem)
async def get_queue_item(user: CurrentUser, source: Reads, queue_id: QueueId, item_id: ItemId) -> Response:
    """Get an item, without null fields."""
    return _json(await store.get_json(source, queue_id, item_id, nulls=False, viewer=rights.scope(user)))


@router.delete("/{queue_id}/i/{item_id}", operation_id="delete_queue_item")
async def delete_queue_item(needs: Needs, user: CurrentUser, queue_id: QueueId, item_id: ItemId) -> None:
    """Delete an item; a running item is canceled first."""
    await service.delete(needs, queue_id, item_id, user=user)


@router.put("/{queue_id}/i/{item_id}/cancel", operation_id="cancel_queue_item", response_model=SessionQueueItem)
async def cancel_queue_item(needs: Needs, user: CurrentUser, queue_id: QueueId, item_id: ItemId) -> Response:
    """Cancel an item; an item that has ended is not changed."""
    return _json(await service.cancel(needs, queue_id, item_id, user=user))


@router.put("/{queue_id}/i/{item_id}/prepend", operation_id="prepend_queue_item", response_model=SessionQueueItem)
async def prepend_queue_item(needs: Needs, user: CurrentUser, queue_id: QueueId, item_id: ItemId) -> Response:
    """Move a pending item before all other pending items, or all own ones; an item that is not pending is not changed."""
    return _json(await service.prepend(needs, queue_id, item_id, user=user))


@router.delete("/{queue_id}/d/{destination}", operation_id="delete_by_destination")
async def delete_by_destination(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    destination: Annotated[str, Path(description="Destination of the items.")],
) -> DeleteByDestinationResult:
    """Delete all items with a destination; running items are canceled first."""
    items = ItemFilter(queue_id=queue_id, destination=destination, owner=rights.scope(user))
    return DeleteByDestinationResult(deleted=await service.delete_many(needs, items))
