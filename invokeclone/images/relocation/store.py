"""Moves of images in SQL: which images lie elsewhere than the strategy wants, the journal, the jobs, and the flag that stops the queue.

It knows no files.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.schemas import ImageMoveJobResponse, MoveState
from invokeclone.kit.times import now
from invokeclone.tables import app_state, image_move_items, image_move_jobs, images, session_queue

MOVING = "images_moving"
"""The key in `app_state` whose presence says that images are being moved: then workers take no items."""

UNDER_WAY = ("planned", "moving", "moved")
_ACTIVE = ("pending", "in_progress", "waiting")
_jobs, _items = image_move_jobs.c, image_move_items.c


class Move(NamedTuple):
    """An image whose files go from one subfolder to another."""

    name: str
    origin: str
    target: str


def subfolder(strategy: str) -> ColumnElement[str]:
    """Return where the strategy wants an image, as `files.subfolder` says it of a new one."""
    match strategy:
        case "date":
            return func.coalesce(func.strftime("%Y/%m/%d", images.c.created_at, "localtime"), "")
        case "type":
            return case((images.c.is_intermediate, literal("intermediate")), else_=images.c.image_category)
        case "hash":
            return func.substr(images.c.image_name, 1, 2)
        case _:
            return literal("")


# Which


async def count_misplaced(connection: AsyncConnection, strategy: str) -> int:
    """Count the images that lie elsewhere than the strategy wants."""
    misplaced = select(func.count()).select_from(images).where(images.c.image_subfolder != subfolder(strategy))
    return int((await connection.execute(misplaced)).scalar_one())


async def list_misplaced(connection: AsyncConnection, strategy: str, after: int, size: int) -> tuple[list[Move], int]:
    """Return the next images to move, at most `size`, from the row numbered `after` on; and the number to go on from."""
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
    """Note which images are being moved, in place of those before."""
    await connection.execute(delete(image_move_items))
    if moves:
        rows = [{"image_name": move.name, "from_subfolder": move.origin, "to_subfolder": move.target} for move in moves]
        await connection.execute(insert(image_move_items), rows)


async def read_journal(connection: AsyncConnection) -> list[tuple[Move, str | None]]:
    """Return what is noted, and where each record says that its files lie; None when the image is gone."""
    statement = select(
        _items.image_name, _items.from_subfolder, _items.to_subfolder, images.c.image_subfolder
    ).outerjoin(images, images.c.image_name == _items.image_name)
    return [(Move(*row[:3]), row[3]) for row in await connection.execute(statement)]


async def relocate(connection: AsyncConnection, names: Sequence[str]) -> set[str]:
    """Have the records of `names` say that their files are where the journal wants them; return which did.

    Not those of images that are deleted or elsewhere by now.
    """
    target = select(_items.to_subfolder).where(_items.image_name == images.c.image_name)
    unmoved = target.where(_items.from_subfolder == images.c.image_subfolder)
    statement = (
        update(images)
        .where(images.c.image_name.in_(names), unmoved.exists())
        .values(image_subfolder=target.scalar_subquery())
        .returning(images.c.image_name)
    )
    return set((await connection.execute(statement)).scalars())


async def set_subfolder(connection: AsyncConnection, name: str, subfolder: str) -> None:
    """Have one record say where its files are."""
    await connection.execute(update(images).where(images.c.image_name == name).values(image_subfolder=subfolder))


# The jobs


async def add_job(connection: AsyncConnection) -> int:
    """Note a new job and return its id."""
    moment = now()
    new = insert(image_move_jobs).values(state="planned", created_at=moment, updated_at=moment)
    return int((await connection.execute(new.returning(_jobs.job_id))).scalar_one())


async def set_state(connection: AsyncConnection, job_id: int, state: MoveState, error: str | None = None) -> None:
    """Note how far a job is."""
    await connection.execute(
        update(image_move_jobs).where(_jobs.job_id == job_id).values(state=state, error_message=error, updated_at=now())
    )


async def give_up(connection: AsyncConnection, error: str) -> None:
    """Note that no job is under way any more."""
    values: dict[str, Any] = {"state": "error", "error_message": error, "updated_at": now()}
    await connection.execute(update(image_move_jobs).where(_jobs.state.in_(UNDER_WAY)).values(values))


async def latest_job(connection: AsyncConnection) -> ImageMoveJobResponse | None:
    """Return the newest job."""
    newest = select(_jobs.job_id, _jobs.state, _jobs.error_message).order_by(_jobs.job_id.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    return ImageMoveJobResponse(id=row.job_id, state=row.state, error_message=row.error_message) if row else None


# The queue


async def is_queue_busy(connection: AsyncConnection) -> bool:
    """Tell whether any item waits or is being run."""
    active = select(session_queue.c.item_id).where(session_queue.c.status.in_(_ACTIVE)).limit(1)
    return (await connection.execute(active)).first() is not None


async def hold_queue(connection: AsyncConnection) -> None:
    """Have the workers take no items."""
    await connection.execute(insert(app_state).prefix_with("OR IGNORE").values(key=MOVING, value="1"))


async def release_queue(connection: AsyncConnection) -> None:
    """Have the workers take items again."""
    await connection.execute(delete(app_state).where(app_state.c.key == MOVING))
