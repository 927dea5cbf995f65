"""Status of the workers as a whole, and pausing and resuming them."""

from collections.abc import Awaitable, Callable

from invokeclone.kit.errors import Forbidden
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue import counts, store
from invokeclone.queue.events import ProcessorResumedEvent
from invokeclone.queue.reports import report
from invokeclone.queue.schemas import SessionProcessorStatus, SessionQueueAndProcessorStatus
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User


class AdminOnly(Forbidden):
    """Only an admin may do this."""

    def __init__(self) -> None:
        super().__init__("Only an admin may pause and resume the queue")


async def status(resources: Resources, queue_id: str, *, user: User = SYSTEM) -> SessionQueueAndProcessorStatus:
    """Return the status of a queue, with the counts of `user`'s own items, and of the workers."""
    return await counts.of_queue(resources.database, queue_id, user.user_id, rights.scope(user))


async def processor_status(resources: Resources) -> SessionProcessorStatus:
    """Return whether the workers take items, and whether any item is running."""
    return await counts.of_processor(resources.database)


async def pause(resources: Resources, *, user: User = SYSTEM) -> SessionProcessorStatus:
    """Pause the workers. Raises AdminOnly."""
    return await _switch(resources, user, store.pause)


async def resume(resources: Resources, *, user: User = SYSTEM) -> SessionProcessorStatus:
    """Resume the workers. Raises AdminOnly."""
    status = await _switch(resources, user, store.resume)
    report(resources, [ProcessorResumedEvent()])
    return status


async def _switch(
    resources: Resources, user: User, act: Callable[[Changes], Awaitable[None]]
) -> SessionProcessorStatus:
    if not user.is_admin:
        raise AdminOnly

    async def switch(connection: Changes) -> SessionProcessorStatus:
        await act(connection)
        return await counts.of_processor(connection)

    return await resources.database.transact(switch)
