"""SQL for boards; covers are read from the index of images by board, counts from tables maintained by triggers."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.boards.errors import BoardNotFound, ImageNotFound
from invokeclone.boards.schemas import BoardChanges, BoardDTO, BoardRecordOrderBy, BoardVisibility
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.lists import name_lists
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.images.schemas import NO_BOARD
from invokeclone.kit.paging import OffsetPaginatedResults, SQLiteDirection
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.kit.times import now
from invokeclone.tables import boards, image_counts, images, users
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User

_GENERAL = image_counts.c.image_category == ImageCategory.GENERAL.value


def _item_conditions(kind: MediaKind) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the items that a board displays."""
    return kind.board_id == boards.c.board_id, kind.table.c.is_intermediate == literal_column("0")


def _count_images(condition: ColumnElement[bool]) -> ScalarSelect[Any]:
    """Select the number of images of a category that a board displays, from `image_counts`."""
    statement = select(func.coalesce(func.sum(image_counts.c.number), 0)).where(
        image_counts.c.board_id == boards.c.board_id, image_counts.c.is_intermediate == literal_column("0"), condition
    )
    return statement.correlate(boards).scalar_subquery()


def _count_videos() -> ScalarSelect[Any]:
    return (
        select(func.count())
        .select_from(VIDEOS.table)
        .where(*_item_conditions(VIDEOS))
        .correlate(boards)
        .scalar_subquery()
    )


def _cover(kind: MediaKind) -> ScalarSelect[Any]:
    """Select the first displayed item of a kind on a board, as JSON: its sort key and name."""
    ordered = (kind.table.c.starred, kind.table.c.created_at, kind.tiebreaker)
    first = select(func.json_array(*ordered, kind.name)).where(*_item_conditions(kind))
    return first.order_by(*[key.desc() for key in ordered]).limit(1).correlate(boards).scalar_subquery()


@cache
def _boards(*, owners: bool) -> Select[Any]:
    """Select boards with all fields of `BoardDTO`, with the owners' names if `owners`."""
    owner: ColumnElement[Any] = null()
    if owners:
        owner = select(users.c.display_name).where(users.c.user_id == boards.c.user_id).scalar_subquery()
    return select(
        boards.c.board_id,
        boards.c.board_name,
        boards.c.user_id,
        boards.c.created_at,
        boards.c.updated_at,
        boards.c.archived,
        boards.c.board_visibility,
        _count_images(_GENERAL).label("image_count"),
        _count_images(~_GENERAL).label("asset_count"),
        _count_videos().label("video_count"),
        _cover(IMAGES).label("cover_image"),
        _cover(VIDEOS).label("cover_video"),
        owner.label("owner_username"),
    )


def _fields(row: tuple[Any, ...]) -> dict[str, Any]:
    """Return the fields of `BoardDTO` for a row of `_boards`."""
    board_id, board_name, user_id, created_at, updated_at, archived, visibility, *computed = row
    images_shown, assets, videos, cover_image, cover_video, owner = computed
    image, video = (orjson.loads(cover or "[]") for cover in (cover_image, cover_video))
    return {
        "board_id": board_id,
        "board_name": board_name,
        "user_id": user_id,
        "created_at": created_at,
        "updated_at": updated_at,
        "deleted_at": None,
        "cover_image_name": image[-1] if image > video else None,
        "archived": bool(archived),
        "board_visibility": visibility,
        "cover_video_name": video[-1] if video > image else None,
        "image_count": images_shown,
        "video_count": videos,
        "asset_count": assets,
        "owner_username": owner,
        "is_private": False,
    }


def _board(row: tuple[Any, ...]) -> BoardDTO:
    return BoardDTO.model_validate(_fields(row))


async def create(connection: AsyncConnection, board_name: str, user_id: str = "system") -> BoardDTO:
    """Create a board; names need not be unique."""
    values = {
        "board_id": str(uuid4()),
        "board_name": board_name,
        "user_id": user_id,
        "created_at": (moment := now()),
        "updated_at": moment,
        "archived": False,
        "board_visibility": BoardVisibility.Private,
    }
    await _CREATE.rows(connection, **values)
    return BoardDTO(**values, cover_image_name=None, image_count=0, asset_count=0)


_CREATE = PreparedStatement(
    insert(boards).values(
        {
            name: parameter(name)
            for name in (
                "board_id",
                "board_name",
                "user_id",
                "created_at",
                "updated_at",
                "archived",
                "board_visibility",
            )
        }
    )
)


async def get(source: Source, board_id: str) -> BoardDTO:
    """Return a board; raises BoardNotFound."""
    row = await _one_board().first(source, board_id=board_id)
    if row is None:
        raise BoardNotFound(board_id)
    return _board(row)


@cache
def _one_board() -> PreparedStatement:
    return PreparedStatement(_boards(owners=False).where(boards.c.board_id == parameter("board_id")))


_BOARD_EXISTS = PreparedStatement(select(boards.c.board_id).where(boards.c.board_id == parameter("board_id")))


async def require(source: Source, board_id: str) -> None:
    """Raise BoardNotFound unless the board exists."""
    if await _BOARD_EXISTS.first(source, board_id=board_id) is None:
        raise BoardNotFound(board_id)


async def update_board(connection: AsyncConnection, board_id: str, changes: BoardChanges) -> BoardDTO:
    """Apply the set fields of `changes` and return the board; raises BoardNotFound, or ImageNotFound for the cover."""
    cover = changes.cover_image_name
    await require(connection, board_id)
    if cover is not None:
        result = await connection.execute(select(images.c.image_name).where(images.c.image_name == cover))
        if result.first() is None:
            raise ImageNotFound(cover)
    values = changes.model_dump(mode="json", exclude_none=True)
    await connection.execute(update(boards).where(boards.c.board_id == board_id).values(**values, updated_at=now()))
    return await get(connection, board_id)


async def delete_board(connection: AsyncConnection, board_id: str) -> None:
    """Delete a board; its items are on no board afterwards. Raises BoardNotFound."""
    await require(connection, board_id)
    await connection.execute(delete(boards).where(boards.c.board_id == board_id))


async def names(connection: AsyncConnection, board_id: str, kind: MediaKind) -> list[str]:
    """Return the names of all items of a kind on a board."""
    return list((await connection.execute(select(kind.name).where(kind.board_id == board_id))).scalars())


def _order(order_by: BoardRecordOrderBy, direction: SQLiteDirection) -> list[ColumnElement[Any]]:
    """Return the sort order: by time or by case-insensitive name, then by id."""
    first = func.lower(boards.c.board_name) if order_by is BoardRecordOrderBy.Name else boards.c.created_at
    keys: list[ColumnElement[Any]] = [first, boards.c.board_id]
    return [key.desc() for key in keys] if direction is SQLiteDirection.Descending else keys


@cache
def _listing(
    order_by: BoardRecordOrderBy, direction: SQLiteDirection, *, include_archived: bool, owners: bool
) -> Select[Any]:
    """Return the statement of a list; at most sixteen variants are cached."""
    statement = _boards(owners=owners).order_by(*_order(order_by, direction))
    return statement if include_archived else statement.where(boards.c.archived == literal_column("0"))


async def list_all_json(
    source: Source,
    order_by: BoardRecordOrderBy,
    direction: SQLiteDirection,
    *,
    include_archived: bool = False,
    user: User = SYSTEM,
) -> bytes:
    """Return all boards visible to `user` as a JSON array, without archived ones unless `include_archived`."""
    statement = _all(order_by, direction, include_archived=include_archived, of_admin=user.is_admin)
    return orjson.dumps([_fields(row) for row in await statement.rows(source, user_id=user.user_id)])


async def list_all(source: Source, *, user: User = SYSTEM) -> list[BoardDTO]:
    """Return all boards visible to `user` that are not archived, the newest first."""
    statement = _all(
        BoardRecordOrderBy.CreatedAt, SQLiteDirection.Descending, include_archived=False, of_admin=user.is_admin
    )
    return [_board(row) for row in await statement.rows(source, user_id=user.user_id)]


@cache
def _all(
    order_by: BoardRecordOrderBy, direction: SQLiteDirection, *, include_archived: bool, of_admin: bool
) -> PreparedStatement:
    listing = _listing(order_by, direction, include_archived=include_archived, owners=of_admin)
    return PreparedStatement(listing if of_admin else listing.where(rights.is_visible_board(parameter("user_id"))))


async def page(
    connection: AsyncConnection,
    offset: int,
    limit: int,
    order_by: BoardRecordOrderBy = BoardRecordOrderBy.CreatedAt,
    direction: SQLiteDirection = SQLiteDirection.Descending,
    *,
    include_archived: bool = False,
    user: User = SYSTEM,
) -> OffsetPaginatedResults[BoardDTO]:
    """Return a page of the boards visible to `user`; `total` is the number on all pages."""
    visible = rights.visible_boards(user)
    counting = select(func.count()).select_from(boards).where(*visible)
    if not include_archived:
        counting = counting.where(boards.c.archived == literal_column("0"))
    total = (await connection.execute(counting)).scalar_one()
    listing = _listing(order_by, direction, include_archived=include_archived, owners=user.is_admin)
    rows = await connection.execute(listing.where(*visible).limit(limit).offset(offset))
    items = [_board(tuple(row)) for row in rows]
    return OffsetPaginatedResults[BoardDTO](limit=limit, offset=offset, total=total, items=items)


async def image_names_json(
    source: Source,
    board_id: str,
    categories: Sequence[ImageCategory] | None = None,
    *,
    is_intermediate: bool | None = None,
    owner: str | None = None,
) -> bytes | None:
    """Return the names of the images on a board, or on no board for "none", as a JSON array; with `owner` only theirs.

    The order is the gallery's. Returns None when the board does not exist.
    """
    statement = _image_names(
        None if categories is None else tuple(categories),
        is_intermediate=is_intermediate,
        without_board=board_id == NO_BOARD,
        by_owner=owner is not None,
    )
    row = await statement.first(source, board_id=board_id, owner=owner)
    assert row
    names_json, _number, board_exists = row
    return bytes(names_json) if board_exists else None


async def image_names(
    source: Source,
    board_id: str,
    categories: Sequence[ImageCategory] | None = None,
    *,
    is_intermediate: bool | None = None,
    owner: str | None = None,
) -> list[str]:
    """Return the same as a list, empty if the board does not exist."""
    names = await image_names_json(source, board_id, categories, is_intermediate=is_intermediate, owner=owner)
    return [] if names is None else list(orjson.loads(names))


@lru_cache(maxsize=64)
def _image_names(
    categories: tuple[ImageCategory, ...] | None, *, is_intermediate: bool | None, without_board: bool, by_owner: bool
) -> PreparedStatement:
    on_board = images.c.board_id.is_(None) if without_board else images.c.board_id == parameter("board_id")
    statement = select(images.c.image_name).where(on_board)
    if by_owner:
        statement = statement.where(images.c.user_id == parameter("owner"))
    if categories is not None:
        statement = statement.where(images.c.image_category.in_(categories))
    if is_intermediate is not None:
        statement = statement.where(images.c.is_intermediate == is_intermediate)
    listed = statement.order_by(
        images.c.starred.desc(), images.c.created_at.desc(), images.c.image_name.desc()
    ).subquery()
    board_exists: ColumnElement[Any] = literal_column("1")
    if not without_board:
        board_exists = select(boards.c.board_id).where(boards.c.board_id == parameter("board_id")).exists()
    return PreparedStatement(name_lists.json_array_statement(listed, listed.c.image_name).add_columns(board_exists))
