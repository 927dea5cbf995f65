"""The queue's routes. Items leave as JSON text made from their rows: no session is read on the way."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response
from starlette.responses import StreamingResponse

from invokeclone.kit.config.limits import check_prompt
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.requests import LATER, Needs, Reads
from invokeclone.queue import batch_json, counts, generation, processor, service, store
from invokeclone.queue.bulk import ItemFilter
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

QueueId = Annotated[str, Path(description="The queue's name: a label that needs no making.")]
ItemId = Annotated[int, Path(description="The item's id.")]
ItemIds = Annotated[list[int], Body(embed=True, max_length=1000, description="The items' ids.")]
Destination = Annotated[str, Query(description="The destination of the items.")]


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
    batch: Annotated[Batch, LATER, Body(description="What to run.")],
    prepend: Annotated[bool, Body(description="Run it before all that is pending.")] = False,
    validation_run_data: Annotated[  # noqa: ARG001  (older clients may send it)
        ValidationRunData | None, Body(description="Read and not used.")
    ] = None,
) -> Response:
    """Enqueue a batch: the graph once for each combination of its data, `runs` times over."""
    checked = await batch_json.read_batch(batch, needs.settings.limits)
    result = await service.enqueue(needs, queue_id, checked, prepend=prepend, user=user)
    return _json(await batch_json.dump_result(result))


@router.post("/{queue_id}/enqueue_prompt", operation_id="enqueue_prompt", response_model=EnqueueBatchResult)
async def enqueue_prompt(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    request: Annotated[GenerationRequest, Body(description="What is stated of the images.")],
    prepend: Annotated[bool, Query(description="Run it before all that is pending.")] = False,
) -> Response:
    """Enqueue images of a prompt, without a graph: model, size and the rest are resolved where they are left open."""
    for prompt, what in ((request.prompt, "the prompt"), (request.negative_prompt, "the negative prompt")):
        check_prompt(prompt if isinstance(prompt, str) else prompt.raw_text, needs.settings.limits, what)
    async with needs.database.read() as connection:
        await generation.require_images(connection, user, request)
        resolved = await generation.resolve(connection, request)
    batch = resolved.batch(origin="prompt")
    result = await service.enqueue(needs, queue_id, batch, prepend=prepend, user=user)
    return _json(result.model_dump_json())


@router.get("/{queue_id}/list_all", operation_id="list_all_queue_items", response_model=list[SessionQueueItem])
async def list_all_queue_items(
    user: CurrentUser,
    source: Reads,
    queue_id: QueueId,
    destination: Annotated[str | None, Query(description="Only items with this destination.")] = None,
) -> Response:
    """List all items, those of high priority first."""
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
    order_dir: Annotated[SQLiteDirection, Query(description="Whether the newest come last or first.")] = (
        SQLiteDirection.Descending
    ),
) -> ItemIdsResult:
    """List the ids of all items by the time they were made."""
    newest_first = order_dir is SQLiteDirection.Descending
    item_ids = await store.list_ids(source, queue_id, newest_first=newest_first)
    return ItemIdsResult(item_ids=item_ids, total_count=len(item_ids))


@router.post(
    "/{queue_id}/items_by_ids", operation_id="get_queue_items_by_item_ids", response_model=list[SessionQueueItem]
)
async def get_queue_items_by_item_ids(
    user: CurrentUser, source: Reads, queue_id: QueueId, item_ids: ItemIds
) -> Response:
    """Get items in the order asked for; ids that the queue does not have are left out."""
    return _json(await store.get_many_json(source, queue_id, item_ids, rights.scope(user)))


@router.post(
    "/{queue_id}/item_summaries_by_ids",
    operation_id="get_queue_item_summaries_by_ids",
    response_model=list[SessionQueueItemSummary],
)
async def get_queue_item_summaries_by_ids(
    user: CurrentUser, source: Reads, queue_id: QueueId, item_ids: ItemIds
) -> Response:
    """Get items without their sessions, in the order asked for; ids that the queue does not have are left out."""
    return _json(await store.get_summaries_json(source, queue_id, item_ids, rights.scope(user)))


@router.put("/{queue_id}/processor/resume", operation_id="resume")
async def resume(needs: Needs, user: CurrentUser, queue_id: QueueId) -> SessionProcessorStatus:  # noqa: ARG001
    """Have the workers take items again, of every queue."""
    return await processor.resume(needs, user=user)


@router.put("/{queue_id}/processor/pause", operation_id="pause")
async def pause(needs: Needs, user: CurrentUser, queue_id: QueueId) -> SessionProcessorStatus:  # noqa: ARG001
    """Have the workers take no more items, of any queue; an item that is being run goes on to its end."""
    return await processor.pause(needs, user=user)


@router.put("/{queue_id}/cancel_all_except_current", operation_id="cancel_all_except_current")
async def cancel_all_except_current(needs: Needs, user: CurrentUser, queue_id: QueueId) -> CancelAllExceptCurrentResult:
    """Cancel all items that wait."""
    canceled = await service.cancel_idle(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return CancelAllExceptCurrentResult(canceled=canceled)


@router.put("/{queue_id}/delete_all_except_current", operation_id="delete_all_except_current")
async def delete_all_except_current(needs: Needs, user: CurrentUser, queue_id: QueueId) -> DeleteAllExceptCurrentResult:
    """Delete all items that wait."""
    deleted = await service.delete_idle(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return DeleteAllExceptCurrentResult(deleted=deleted)


@router.put("/{queue_id}/cancel_by_batch_ids", operation_id="cancel_by_batch_ids")
async def cancel_by_batch_ids(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    batch_ids: Annotated[list[str], Body(embed=True, description="The batches' ids.")],
) -> CancelByBatchIDsResult:
    """Cancel the items of batches."""
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
    item_ids: Annotated[list[int], Body(description="The items' ids.")],
) -> RetryItemsResult:
    """Enqueue items once more that failed or were canceled; others are left out."""
    return await service.retry(needs, queue_id, item_ids, user=user)


@router.put("/{queue_id}/clear", operation_id="clear")
async def clear(needs: Needs, user: CurrentUser, queue_id: QueueId) -> ClearResult:
    """Delete all items, canceling what is being run."""
    deleted = await service.clear(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return ClearResult(deleted=deleted)


@router.put("/{queue_id}/prune", operation_id="prune")
async def prune(needs: Needs, user: CurrentUser, queue_id: QueueId) -> PruneResult:
    """Delete the items that have ended."""
    deleted = await service.prune(needs, ItemFilter(queue_id=queue_id, owner=rights.scope(user)))
    return PruneResult(deleted=deleted)


@router.get("/{queue_id}/current", operation_id="get_current_queue_item", response_model=SessionQueueItem | None)
async def get_current_queue_item(user: CurrentUser, source: Reads, queue_id: QueueId) -> Response:
    """Get an item that is being run, or null."""
    return _json(await store.current_json(source, queue_id, rights.scope(user)))


@router.get("/{queue_id}/next", operation_id="get_next_queue_item", response_model=SessionQueueItem | None)
async def get_next_queue_item(user: CurrentUser, source: Reads, queue_id: QueueId) -> Response:
    """Get the first item that waits, or null."""
    return _json(await store.next_json(source, queue_id, rights.scope(user)))


@router.get("/{queue_id}/status", operation_id="get_queue_status")
async def get_queue_status(needs: Needs, user: CurrentUser, queue_id: QueueId) -> SessionQueueAndProcessorStatus:
    """Get the state of the queue and of the workers."""
    return await processor.status(needs, queue_id, user=user)


@router.get("/{queue_id}/b/{batch_id}/status", operation_id="get_batch_status")
async def get_batch_status(
    user: CurrentUser,
    source: Reads,
    queue_id: QueueId,
    batch_id: Annotated[str, Path(description="The batch's id.")],
) -> BatchStatus:
    """Get the state of a batch; one that nobody knows has no items."""
    return await counts.of_batch(source, queue_id, batch_id, rights.scope(user))


@router.get("/{queue_id}/counts_by_destination", operation_id="counts_by_destination")
async def counts_by_destination(
    user: CurrentUser, source: Reads, queue_id: QueueId, destination: Destination
) -> SessionQueueCountsByDestination:
    """Count the items with a destination."""
    return await counts.of_destination(source, queue_id, destination, rights.scope(user))


@router.get("/{queue_id}/i/{item_id}", operation_id="get_queue_item", response_model=SessionQueueItem)
async def get_queue_item(user: CurrentUser, source: Reads, queue_id: QueueId, item_id: ItemId) -> Response:
    """Get an item, without the fields that are null."""
    return _json(await store.get_json(source, queue_id, item_id, nulls=False, viewer=rights.scope(user)))


@router.delete("/{queue_id}/i/{item_id}", operation_id="delete_queue_item")
async def delete_queue_item(needs: Needs, user: CurrentUser, queue_id: QueueId, item_id: ItemId) -> None:
    """Delete an item, canceling it if it is being run."""
    await service.delete(needs, queue_id, item_id, user=user)


@router.put("/{queue_id}/i/{item_id}/cancel", operation_id="cancel_queue_item", response_model=SessionQueueItem)
async def cancel_queue_item(needs: Needs, user: CurrentUser, queue_id: QueueId, item_id: ItemId) -> Response:
    """Cancel an item; one that has ended stays as it is."""
    return _json(await service.cancel(needs, queue_id, item_id, user=user))


@router.delete("/{queue_id}/d/{destination}", operation_id="delete_by_destination")
async def delete_by_destination(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    destination: Annotated[str, Path(description="The destination of the items.")],
) -> DeleteByDestinationResult:
    """Delete all items with a destination, canceling what is being run."""
    items = ItemFilter(queue_id=queue_id, destination=destination, owner=rights.scope(user))
    return DeleteByDestinationResult(deleted=await service.delete_many(needs, items))
