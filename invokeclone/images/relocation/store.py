"""SQL for moving images: images in the wrong subfolder, the journal, the jobs, and the flag that pauses the queue."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, delete, func, insert, literal, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.schemas import ImageMoveJobResponse, MoveState
from invokeclone.kit.times import now
from invokeclone.tables import app_state, image_move_items, image_move_jobs, images, session_queue

MOVING = "images_moving"
"""The key in `app_state` that is present while images are being moved: then workers do not claim items.

Its value is the id of the server that moves them.
"""

UNDER_WAY = ("planned", "moving", "moved")
_ACTIVE = ("pending", "in_progress", "waiting")
_jobs, _items = image_move_jobs.c, image_move_items.c


class Move(NamedTuple):
    """An image whose files move from one subfolder to another."""

    name: str
    origin: str
    target: str


def subfolder(strategy: str) -> ColumnElement[str]:
    """Return the subfolder of an image according to the strategy, as `files.subfolder` does for a new one."""
    match strategy:
        case "date":
            return func.coalesce(func.local_date(images.c.created_at), "")
        case "type":
            return case(
                (images.c.is_intermediate == literal_column("1"), literal("intermediate")),
                else_=images.c.image_category,
            )
        case "hash":
            return func.substr(images.c.image_name, 1, 2)
        case _:
            return literal("")


# Images to move


async def count_misplaced(connection: AsyncConnection, strategy: str) -> int:
    """Count the images in the wrong subfolder."""
    misplaced = select(func.count()).select_from(images).where(images.c.image_subfolder != subfolder(strategy))
    return int((await connection.execute(misplaced)).scalar_one())


async def list_misplaced(connection: AsyncConnection, strategy: str, after: int, size: int) -> tuple[list[Move], int]:
    """Return at most `size` images to move whose ids follow `after`, and the id to continue from."""
    target = subfolder(strategy)
    misplaced = (
        select(images.c.image_name, images.c.image_subfolder, target, images.c.image_id)
        .where(images.c.image_id > after, images.c.image_subfolder != target)
        .order_by(images.c.image_id)
        .limit(size)
    )
    rows = (await connection.execute(misplaced)).all()
    return [Move(*row[:3]) for row in rows], rows[-1][3] if rows else after


# The journal


async def write_journal(connection: AsyncConnection, moves: Sequence[Move]) -> None:
    """Replace the journal with the images that are being moved."""
    await connection.execute(delete(image_move_items))
    if moves:
        rows = [{"image_name": move.name, "from_subfolder": move.origin, "to_subfolder": move.target} for move in moves]
        await connection.execute(insert(image_move_items), rows)


async def read_journal(connection: AsyncConnection) -> list[tuple[Move, str | None]]:
    """Return the journal with the current subfolder of each record; None when the image is deleted."""
    statement = select(
        _items.image_name, _items.from_subfolder, _items.to_subfolder, images.c.image_subfolder
    ).outerjoin(images, images.c.image_name == _items.image_name)
    return [(Move(*row[:3]), row[3]) for row in await connection.execute(statement)]


async def relocate(connection: AsyncConnection, names: Sequence[str]) -> None:
    """Set the subfolders of the records of `names` to the targets in the journal.

    Images that were deleted or moved meanwhile are skipped.
    """
    target = select(_items.to_subfolder).where(_items.image_name == images.c.image_name)
    unmoved = target.where(_items.from_subfolder == images.c.image_subfolder)
    statement = (
        update(images)
        .where(images.c.image_name.in_(names), unmoved.exists())
        .values(image_subfolder=target.scalar_subquery())
    )
    await connection.execute(statement)


async def correct_subfolder(connection: AsyncConnection, name: str, recorded: str, subfolder: str) -> None:
    """Set the subfolder of one record if it is still `recorded`."""
    unchanged = (images.c.image_name == name, images.c.image_subfolder == recorded)
    await connection.execute(update(images).where(*unchanged).values(image_subfolder=subfolder))


# The jobs


async def add_job(connection: AsyncConnection) -> int:
    """Insert a new job and return its id."""
    moment = now()
    new = insert(image_move_jobs).values(state="planned", created_at=moment, updated_at=moment)
    return int((await connection.execute(new.returning(_jobs.job_id))).scalar_one())


async def set_state(connection: AsyncConnection, job_id: int, state: MoveState, error: str | None = None) -> None:
    """Set the state of a job."""
    await connection.execute(
        update(image_move_jobs).where(_jobs.job_id == job_id).values(state=state, error_message=error, updated_at=now())
    )


async def give_up(connection: AsyncConnection, error: str) -> None:
    """Set all unfinished jobs to the error state."""
    values: dict[str, Any] = {"state": "error", "error_message": error, "updated_at": now()}
    await connection.execute(update(image_move_jobs).where(_jobs.state.in_(UNDER_WAY)).values(values))


async def latest_job(connection: AsyncConnection) -> ImageMoveJobResponse | None:
    """Return the newest job."""
    newest = select(_jobs.job_id, _jobs.state, _jobs.error_message).order_by(_jobs.job_id.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    return ImageMoveJobResponse(id=row.job_id, state=row.state, error_message=row.error_message) if row else None


# The queue


async def is_queue_busy(connection: AsyncConnection) -> bool:
    """Return whether any item is pending, running or waiting."""
    active = select(session_queue.c.item_id).where(session_queue.c.status.in_(_ACTIVE)).limit(1)
    return (await connection.execute(active)).first() is not None


async def hold_queue(connection: AsyncConnection, server_id: str) -> None:
    """Stop the workers from claiming items, on behalf of a server; a server that did so before has lost its lock."""
    flag = insert_or(app_state).values(key=MOVING, value=server_id)
    await connection.execute(flag.on_conflict_do_update(index_elements=["key"], set_={"value": server_id}))


async def holder(connection: AsyncConnection) -> str | None:
    """Return the id of the server that stops the workers from claiming items."""
    value: str | None = (
        await connection.execute(select(app_state.c.value).where(app_state.c.key == MOVING))
    ).scalar_one_or_none()
    return value


async def release_queue(connection: AsyncConnection, server_id: str) -> None:
    """Let the workers claim items again, unless another server stops them by now."""
    await connection.execute(delete(app_state).where(app_state.c.key == MOVING, app_state.c.value == server_id))
