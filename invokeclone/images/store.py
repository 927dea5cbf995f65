"""Image records in SQL; it knows no files. Lists leave as JSON bytes, made once from the rows.

Every list reads one index that holds all it filters and orders by (see tables.py); the rows of a page are fetched by name.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.errors import BoardNotFound, ImageNotFound, ImageNotUpdated
from invokeclone.images.schemas import (
    NO_BOARD,
    ImageDTO,
    ImageFilter,
    ImageRecordChanges,
    NewImage,
    Place,
    Touched,
    image_url,
    thumbnail_url,
)
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.times import now
from invokeclone.tables import boards, images

_READ = (
    "image_name",
    "image_origin",
    "image_category",
    "width",
    "height",
    "created_at",
    "updated_at",
    "is_intermediate",
    "session_id",
    "node_id",
    "starred",
    "has_workflow",
    "image_subfolder",
    "board_id",
)
"""The columns that clients read."""

_DTO = select(*[images.c[name] for name in _READ])
_NAME = images.c.image_name == bindparam("name")
_GET = _DTO.where(_NAME)
_PLACE = select(images.c.image_name, images.c.image_subfolder).where(_NAME)
_METADATA = select(images.c.metadata).where(_NAME)
_TOUCHED = (images.c.image_name, images.c.image_subfolder, images.c.board_id)
SHAPES = 128
"""How many kinds of lists are kept as statements: making one costs as much as running it."""

_NAMED = select(func.json_each(bindparam("names", type_=Text)).table_valued(column("value", Text)).c.value)
"""The names of a JSON list as rows: one statement whatever their number."""

OWNED = images.c.user_id != literal_column("'system'")
"""True of what a signed-in user owns: it lets a list of one user's own read the indexes that hold nothing else."""

_BY_NAMES = _DTO.where(images.c.image_name.in_(_NAMED))


def _fields(row: Any) -> dict[str, Any]:
    """Return what a client reads of a record."""
    fields: dict[str, Any] = dict(zip(_READ, row, strict=True))
    name = fields["image_name"]
    fields["image_url"] = image_url(name)
    fields["thumbnail_url"] = thumbnail_url(name)
    fields["deleted_at"] = None
    return fields


def _touched(rows: Sequence[Any]) -> list[Touched]:
    return [Touched(Place(row.image_name, row.image_subfolder), row.board_id) for row in rows]


def _names(names: Sequence[str]) -> dict[str, str]:
    return {"names": orjson.dumps(list(dict.fromkeys(names))).decode()}


async def insert_image(connection: AsyncConnection, new: NewImage) -> ImageDTO:
    """Record an image whose files are written. A board that does not exist (any more) leaves it on none."""
    moment = now()
    values: dict[str, Any] = {
        **new.model_dump(mode="json"),
        "starred": False,
        "created_at": moment,
        "updated_at": moment,
    }
    values["board_id"] = select(boards.c.board_id).where(boards.c.board_id == new.board_id).scalar_subquery()
    statement = insert(images).values(**values).returning(*_DTO.selected_columns)
    return ImageDTO.model_validate(_fields((await connection.execute(statement)).one()))


async def get(connection: AsyncConnection, name: str) -> ImageDTO:
    """Return an image's record; raises ImageNotFound."""
    row = (await connection.execute(_GET, {"name": name})).one_or_none()
    if row is None:
        raise ImageNotFound(name)
    return ImageDTO.model_validate(_fields(row))


async def place(connection: AsyncConnection, name: str) -> Place:
    """Return which files belong to the image; raises ImageNotFound."""
    row = (await connection.execute(_PLACE, {"name": name})).one_or_none()
    if row is None:
        raise ImageNotFound(name)
    return Place(row.image_name, row.image_subfolder)


async def metadata_json(connection: AsyncConnection, name: str) -> str | None:
    """Return an image's metadata as JSON text; raises ImageNotFound."""
    row = (await connection.execute(_METADATA, {"name": name})).one_or_none()
    if row is None:
        raise ImageNotFound(name)
    return None if row[0] is None else str(row[0])


async def board_exists(connection: AsyncConnection, board_id: str) -> bool:
    """Tell whether there is such a board."""
    found = await connection.execute(select(boards.c.board_id).where(boards.c.board_id == board_id))
    return found.first() is not None


async def board_name(connection: AsyncConnection, board_id: str) -> str:
    """Return the name of a board; raises BoardNotFound."""
    found = await connection.scalar(select(boards.c.board_name).where(boards.c.board_id == board_id))
    if found is None:
        raise BoardNotFound(board_id)
    return str(found)


async def filed(
    connection: AsyncConnection, names: Sequence[str] | None = None, on: ImageFilter | None = None
) -> dict[str, Place]:
    """Return where the files of images lie, by `category/name`: of those of `names` that exist, or of a list."""
    chosen = select(images.c.image_category, images.c.image_name, images.c.image_subfolder)
    if names is not None:
        rows = await connection.execute(chosen.where(images.c.image_name.in_(_NAMED)), _names(names))
    else:
        rows = await connection.execute(chosen.where(*_conditions(on or ImageFilter())))
    return {f"{row.image_category}/{row.image_name}": Place(row.image_name, row.image_subfolder) for row in rows}


def _conditions(wanted: ImageFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.board_id == NO_BOARD:
        conditions.append(images.c.board_id.is_(None))
    elif wanted.board_id is not None:
        conditions.append(images.c.board_id == wanted.board_id)
    if wanted.owner is not None:
        conditions += [images.c.user_id == wanted.owner, OWNED]
    if wanted.is_intermediate is not None:
        conditions.append(images.c.is_intermediate == wanted.is_intermediate)
    if wanted.categories is not None:
        conditions.append(images.c.image_category.in_(wanted.categories))
    if wanted.image_origin is not None:
        conditions.append(images.c.image_origin == wanted.image_origin)
    if wanted.search_term:
        conditions.append(_mentions(wanted.search_term))
    return conditions


def _mentions(term: str) -> ColumnElement[bool]:
    """Match metadata or time; letters may be written out or as JSON escapes, `%` and `_` stand for anything."""
    forms = {f"%{term}%", f"%{json.dumps(term)[1:-1]}%"}
    return or_(images.c.created_at.like(f"%{term}%"), *[images.c.metadata.like(form) for form in sorted(forms)])


def _order(wanted: ImageFilter) -> list[ColumnElement[Any]]:
    """Starred first if wished, then by time; the name makes the order of one millisecond the same every time."""
    by_time: list[ColumnElement[Any]] = [images.c.created_at, images.c.image_name]
    if wanted.order_dir is SQLiteDirection.Descending:
        by_time = [key.desc() for key in by_time]
    return [images.c.starred.desc(), *by_time] if wanted.starred_first else by_time


@lru_cache(maxsize=SHAPES)
def page_names(wanted: ImageFilter) -> Select[Any]:
    """Return the statement that finds the names of a page, from `skip` on and at most `take` of them."""
    names = select(images.c.image_name).where(*_conditions(wanted)).order_by(*_order(wanted))
    return names.limit(bindparam("take", type_=Integer)).offset(bindparam("skip", type_=Integer))


@lru_cache(maxsize=SHAPES)
def _page(wanted: ImageFilter) -> Select[Any]:
    """Return the statement for the records of a page: the rows are looked up only once their names are known."""
    chosen = page_names(wanted).subquery()
    return _DTO.join(chosen, chosen.c.image_name == images.c.image_name).order_by(*_order(wanted))


@lru_cache(maxsize=SHAPES)
def counted(wanted: ImageFilter) -> Select[Any]:
    """Return the statement that counts a whole list."""
    return select(func.count()).select_from(images).where(*_conditions(wanted))


@lru_cache(maxsize=SHAPES)
def all_names(wanted: ImageFilter) -> Select[Any]:
    """Return the statement that makes one JSON list of all names of a list, and counts the starred ones."""
    listed = (
        select(images.c.image_name, images.c.starred).where(*_conditions(wanted)).order_by(*_order(wanted)).subquery()
    )
    return select(func.json_group_array(listed.c.image_name), func.count(), func.sum(listed.c.starred, type_=None))


async def page_json(connection: AsyncConnection, wanted: ImageFilter, offset: int, limit: int) -> bytes:
    """Return a page of records as the JSON of `OffsetPaginatedResults[ImageDTO]`."""
    total = (await connection.execute(counted(wanted))).scalar_one()
    rows = (await connection.execute(_page(wanted), {"skip": offset, "take": limit})).all()
    page = {"limit": limit, "offset": offset, "total": total, "items": [_fields(row) for row in rows]}
    return orjson.dumps(page)


async def names_json(connection: AsyncConnection, wanted: ImageFilter) -> bytes:
    """Return all names of a list as the JSON of `ImageNamesResult`."""
    names, total, starred = (await connection.execute(all_names(wanted))).one()
    starred_count = int(starred or 0) if wanted.starred_first else 0
    return f'{{"image_names":{names},"starred_count":{starred_count},"total_count":{total}}}'.encode()


async def by_names_json(connection: AsyncConnection, names: Sequence[str]) -> bytes:
    """Return the records of `names` in that order as JSON; those that do not exist are left out."""
    rows = (await connection.execute(_BY_NAMES, _names(names))).all()
    found = {row.image_name: _fields(row) for row in rows}
    return orjson.dumps([found[name] for name in names if name in found])


async def update_image(connection: AsyncConnection, name: str, changes: ImageRecordChanges) -> ImageDTO:
    """Change what `changes` sets and return the record; raises ImageNotUpdated when there is no such image."""
    values = {
        key: value
        for key, value in changes.model_dump(mode="json", exclude_none=True).items()
        if key in ImageRecordChanges.model_fields
    }
    statement = (
        update(images)
        .where(images.c.image_name == name)
        .values(**values, updated_at=now())
        .returning(*_DTO.selected_columns)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise ImageNotUpdated(name)
    return ImageDTO.model_validate(_fields(row))


async def set_starred(connection: AsyncConnection, names: Sequence[str], *, starred: bool) -> list[Touched]:
    """Star or unstar the images of `names` that exist, and return them."""
    statement = (
        update(images)
        .where(images.c.image_name.in_(_NAMED))
        .values(starred=starred, updated_at=now())
        .returning(*_TOUCHED)
    )
    return _touched((await connection.execute(statement, _names(names))).all())


async def delete_named(connection: AsyncConnection, names: Sequence[str]) -> list[Touched]:
    """Delete the records of `names` that exist, and return what they were."""
    statement = delete(images).where(images.c.image_name.in_(_NAMED)).returning(*_TOUCHED)
    return _touched((await connection.execute(statement, _names(names))).all())


async def delete_intermediates(connection: AsyncConnection) -> list[Touched]:
    """Delete the records of all intermediates, and return what they were."""
    statement = delete(images).where(images.c.is_intermediate == True).returning(*_TOUCHED)  # noqa: E712
    return _touched((await connection.execute(statement)).all())


async def delete_on_board(connection: AsyncConnection, board_id: str | None) -> list[Touched]:
    """Delete the records of all images on a board (None: on no board), and return what they were."""
    statement = delete(images).where(images.c.board_id.is_not_distinct_from(board_id)).returning(*_TOUCHED)
    return _touched((await connection.execute(statement)).all())


async def count_intermediates(connection: AsyncConnection) -> int:
    """Count the intermediates."""
    return int((await connection.execute(counted(ImageFilter(is_intermediate=True)))).scalar_one())


async def move_to_board(connection: AsyncConnection, names: Sequence[str], board_id: str | None) -> list[Touched]:
    """Put the images of `names` that exist on a board (None: on none); returns them with the board they were on before."""
    before = await connection.execute(select(*_TOUCHED).where(images.c.image_name.in_(_NAMED)), _names(names))
    touched = _touched(before.all())
    await connection.execute(
        update(images).where(images.c.image_name.in_(_NAMED)).values(board_id=board_id), _names(names)
    )
    return touched
