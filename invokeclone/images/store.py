"""SQL for image and video records: insert, read, list, change, delete. Lists are serialized directly from rows to JSON.

Every list reads one index with all columns it filters and orders by (see tables.py); the rows of a page are read by
name.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.errors import BoardNotFound
from invokeclone.images.lists import deep_pages, name_lists, queries, search
from invokeclone.images.lists.filters import conditions
from invokeclone.images.media_kinds import IMAGE_COUNTS, IMAGES, VIDEOS, MediaKind
from invokeclone.images.schemas import (
    AffectedItem,
    ImageDTO,
    ImageFilter,
    ImageLocation,
    ImageRecordChanges,
    NewRecord,
)
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, json_list, members, parameter
from invokeclone.kit.sql.transactions import Rows
from invokeclone.kit.sql.types import RowCount
from invokeclone.kit.times import now
from invokeclone.tables import boards, images
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM

STATEMENT_CACHE_SIZE = 128
"""Number of list statements cached per function: building one takes as long as running it."""

_NAME_LIST = members("names")
"""The parameter that `_names` provides."""


def _to_affected_items(rows: Sequence[Any]) -> list[AffectedItem]:
    return [AffectedItem(ImageLocation(name, subfolder), board_id) for name, subfolder, board_id in rows]


def _names(names: Sequence[str]) -> dict[str, str]:
    return {"names": json_list(dict.fromkeys(names))}


async def add(connection: AsyncConnection, kind: MediaKind, new: NewRecord) -> dict[str, Any]:
    """Insert the record of an item whose files are written, and return the fields of its DTO.

    If the board does not exist or its owner may not add to it, the item is on no board.
    """
    moment = now()
    values = {**new.model_dump(mode="json"), "created_at": moment, "updated_at": moment}
    row = await _add(kind, type(new), system=new.user_id == SYSTEM.user_id).first(connection, **values)
    assert row
    return kind.fields(row)


@cache
def _add(kind: MediaKind, record: type[NewRecord], *, system: bool) -> PreparedStatement:
    """Return the statement that inserts an unstarred record and returns it."""
    columns = [*record.model_fields, "created_at", "updated_at"]
    values: dict[str, Any] = {name: parameter(name) for name in columns}
    values["starred"] = literal_column("0")
    values["board_id"] = rights.fillable_board_id(values["user_id"], values["board_id"], system=system)
    return PreparedStatement(insert(kind.table).values(values).returning(*kind.record.selected_columns))


async def get(source: Source, name: str) -> ImageDTO:
    """Return an image's record; raises ImageNotFound."""
    return ImageDTO.model_validate(await fields(source, IMAGES, name))


async def get_json(source: Source, kind: MediaKind, name: str) -> bytes:
    """Return a record as JSON; raises the kind's error when it does not exist."""
    return orjson.dumps(await fields(source, kind, name))


async def fields(source: Source, kind: MediaKind, name: str) -> dict[str, Any]:
    """Return the DTO fields of a record; raises the kind's error when it does not exist."""
    return kind.fields(await _fetch_one(source, kind, _RECORD, name))


async def get_location(source: Source, name: str, kind: MediaKind = IMAGES) -> ImageLocation:
    """Return the file location of a record; raises the kind's error when it does not exist."""
    return ImageLocation(*await _fetch_one(source, kind, _LOCATION, name))


async def existing(connection: AsyncConnection, kind: MediaKind, names: Sequence[str]) -> set[str]:
    """Return those of `names` that have a record."""
    return set(await connection.scalars(select(kind.name).where(kind.name.in_(_NAME_LIST)), _names(names)))


async def metadata_json(source: Source, name: str, kind: MediaKind = IMAGES) -> str | None:
    """Return the metadata as JSON text; raises the kind's error when the record does not exist."""
    value = (await _fetch_one(source, kind, _METADATA, name))[0]
    return None if value is None else str(value)


def _prepare_by_name(part: Callable[[MediaKind], Select[Any]]) -> dict[MediaKind, PreparedStatement]:
    return {kind: PreparedStatement(part(kind).where(kind.has_name)) for kind in (IMAGES, VIDEOS)}


_RECORD, _LOCATION = _prepare_by_name(lambda kind: kind.record), _prepare_by_name(lambda kind: kind.location)
_METADATA = _prepare_by_name(lambda kind: kind.metadata)


async def _fetch_one(
    source: Source, kind: MediaKind, statements: Mapping[MediaKind, PreparedStatement], name: str
) -> tuple[Any, ...]:
    row = await statements[kind].first(source, name=name)
    if row is None:
        raise kind.not_found_error(name)
    return row


async def board_exists(connection: AsyncConnection, board_id: str) -> bool:
    """Return whether the board exists."""
    result = await connection.execute(select(boards.c.board_id).where(boards.c.board_id == board_id))
    return result.first() is not None


async def board_name(connection: AsyncConnection, board_id: str) -> str:
    """Return the name of a board; raises BoardNotFound."""
    name = await connection.scalar(select(boards.c.board_name).where(boards.c.board_id == board_id))
    if name is None:
        raise BoardNotFound(board_id)
    return str(name)


async def image_locations(
    connection: AsyncConnection, names: Sequence[str] | None = None, on: ImageFilter | None = None
) -> dict[str, ImageLocation]:
    """Return the file locations of images by `category/name`: those of `names` that exist, or of a list."""
    statement = select(images.c.image_category, images.c.image_name, images.c.image_subfolder)
    if names is not None:
        rows = await connection.execute(statement.where(images.c.image_name.in_(_NAME_LIST)), _names(names))
    else:
        rows = await connection.execute(statement.where(*conditions(on or ImageFilter())))
    return {
        f"{row.image_category}/{row.image_name}": ImageLocation(row.image_name, row.image_subfolder) for row in rows
    }


def _order(image_filter: ImageFilter, kind: MediaKind) -> list[ColumnElement[Any]]:
    """Return the sort keys: starred first if requested, then by time, then by name for a stable order."""
    newest_first = deep_pages.newest_first(image_filter, backwards=False)
    by_time: list[ColumnElement[Any]] = [
        key.desc() if newest_first else key.asc() for key in (kind.table.c.created_at, kind.tiebreaker)
    ]
    return [kind.table.c.starred.desc(), *by_time] if image_filter.starred_first else by_time


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def page_names(
    image_filter: ImageFilter, kind: MediaKind = IMAGES, *, backwards: bool = False, from_day: bool = False
) -> CompoundSelect[Any] | Select[Any]:
    """Return the statement for the names of a `ListPart`, optionally from a day on."""
    listed = queries.select_ordered(image_filter, (kind,), backwards=backwards, from_day=from_day)
    return listed.limit(bindparam("take", type_=RowCount, required=False)).offset(
        bindparam("skip", type_=RowCount, required=False)
    )


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _page(image_filter: ImageFilter, kind: MediaKind, *, backwards: bool, from_day: bool) -> PreparedStatement:
    """Return the statement for the records of a page, which looks up rows only for its names."""
    page = page_names(image_filter, kind, backwards=backwards, from_day=from_day).subquery()
    return PreparedStatement(kind.record.join(page, page.c.name == kind.name).order_by(*_order(image_filter, kind)))


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def count_statement(image_filter: ImageFilter, kind: MediaKind = IMAGES, *, starred: bool = False) -> Select[Any]:
    """Return the statement that counts a whole list, or the starred items in it.

    Images are counted from `image_counts`, which covers all list filters except search and day.
    """
    number: ColumnElement[Any] = func.count()
    if kind is IMAGES and not image_filter.search_term and image_filter.created_date is None:
        kind, number = IMAGE_COUNTS, func.coalesce(func.sum(IMAGE_COUNTS.table.c.number), 0)
    stars = [kind.table.c.starred == literal_column("1")] if starred else []
    return select(number).select_from(kind.table).where(*conditions(image_filter, kind), *stars)


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _prepare_count(image_filter: ImageFilter, kind: MediaKind, *, starred: bool = False) -> PreparedStatement:
    return PreparedStatement(count_statement(image_filter, kind, starred=starred))


async def count(source: Source, image_filter: ImageFilter, kind: MediaKind = IMAGES, *, starred: bool = False) -> int:
    """Return the number of items in a whole list, or of the starred ones."""
    row = await _prepare_count(image_filter, kind, starred=starred).first(source)
    assert row
    return int(row[0])


def all_names(image_filter: ImageFilter, kind: MediaKind = IMAGES) -> Select[Any]:
    """Return the statement for all names of a list in order, and their number."""
    listed = queries.select_ordered(image_filter, (kind,)).subquery()
    return name_lists.json_array_statement(listed, listed.c.name)


@lru_cache(maxsize=STATEMENT_CACHE_SIZE)
def _prepare_names(image_filter: ImageFilter, kind: MediaKind) -> PreparedStatement:
    return PreparedStatement(all_names(image_filter, kind))


async def page_json(
    source: Source, image_filter: ImageFilter, offset: int, limit: int, kind: MediaKind = IMAGES
) -> bytes:
    """Return a page of records as the JSON of `OffsetPaginatedResults` of the kind's DTO."""
    total = await count(source, image_filter, kind)
    rows: Rows = []
    if offset < total and limit:
        part = await page_part(source, image_filter, (kind,), offset, limit, total)
        page_filter = search.for_page(image_filter)
        statement = _page(page_filter, kind, backwards=part.backwards, from_day=part.day is not None)
        rows = await statement.rows(source, **part.values)
    page = {"limit": limit, "offset": offset, "total": total, "items": [kind.fields(row) for row in rows]}
    return orjson.dumps(page)


async def page_part(
    source: Source, image_filter: ImageFilter, kinds: tuple[MediaKind, ...], offset: int, limit: int, total: int
) -> deep_pages.ListPart:
    """Return how to read a page of a list of `total` items."""
    part = deep_pages.part_from_nearer_end(total, offset, limit)
    if part.skip <= deep_pages.DEEP_OFFSET or not deep_pages.has_day_counts(image_filter):
        return part
    starred = await count_starred(source, image_filter, kinds)
    return await deep_pages.skip_to_day(source, image_filter, kinds, part, of=total, starred=starred)


async def names_json(
    source: Source, image_filter: ImageFilter, kind: MediaKind = IMAGES, key: str = "image_names"
) -> list[bytes]:
    """Return all names of a list, under `key`, as the JSON of `ImageNamesResult` in pieces to be joined."""
    starred = await count_starred(source, image_filter, [kind])
    return await name_lists.document(source, _prepare_names(image_filter, kind), key, starred)


async def count_starred(source: Source, image_filter: ImageFilter, kinds: Sequence[MediaKind]) -> int:
    """Return the number of starred items at the start of a list: 0 unless starred items come first."""
    if not image_filter.starred_first:
        return 0
    return sum([await count(source, image_filter, kind, starred=True) for kind in kinds])


async def by_names_json(source: Source, names: Sequence[str], kind: MediaKind = IMAGES) -> bytes:
    """Return the records of `names` in that order as JSON, without those that do not exist."""
    records = {record[kind.dto_columns[0]]: record for record in await by_names(source, kind, names)}
    return orjson.dumps([records[name] for name in names if name in records])


async def by_names(source: Source, kind: MediaKind, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the DTO fields of the records of `names`, in any order, without those that do not exist."""
    rows = await _BY_NAMES[kind].rows(source, **_names(names))
    return [kind.fields(row) for row in rows]


_BY_NAMES = {kind: PreparedStatement(kind.record.where(kind.name.in_(_NAME_LIST))) for kind in (IMAGES, VIDEOS)}


async def update_image(connection: AsyncConnection, name: str, changes: ImageRecordChanges) -> ImageDTO:
    """Apply the set fields of `changes` and return the record; raises ImageNotUpdated when the image does not exist."""
    return ImageDTO.model_validate(await change(connection, IMAGES, name, changes))


async def change(connection: AsyncConnection, kind: MediaKind, name: str, changes: BaseModel) -> dict[str, Any]:
    """Apply the set fields of `changes` and return the DTO fields; raises the kind's error without such a record."""
    values = {
        key: value
        for key, value in changes.model_dump(mode="json", exclude_none=True).items()
        if key in type(changes).model_fields
    }
    statement = (
        update(kind.table)
        .where(kind.name == name)
        .values(**values, updated_at=now())
        .returning(*kind.record.selected_columns)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise kind.not_updated_error(name)
    return kind.fields(row)


async def set_starred(
    connection: AsyncConnection, names: Sequence[str], *, starred: bool, kind: MediaKind = IMAGES
) -> list[AffectedItem]:
    """Star or unstar those of `names` that exist, and return them."""
    statement = update(kind.table).where(kind.name.in_(_NAME_LIST)).values(starred=starred, updated_at=now())
    return _to_affected_items(
        (await connection.execute(statement.returning(*kind.change_columns), _names(names))).all()
    )


class Selection(NamedTuple):
    """The records of one kind that match a condition."""

    kind: MediaKind
    condition: ColumnElement[bool]
    parameters: dict[str, str] = {}  # noqa: RUF012  (never changed)


def select_named(names: Sequence[str], kind: MediaKind = IMAGES) -> Selection:
    """Select the records of `names`."""
    return Selection(kind, kind.name.in_(_NAME_LIST), _names(names))


def select_intermediates() -> Selection:
    """Select all intermediate images."""
    return Selection(IMAGES, images.c.is_intermediate == True)  # noqa: E712


def select_on_board(board_id: str | None, owner: str | None = None, kind: MediaKind = IMAGES) -> Selection:
    """Select all items (or those of one owner) on a board (None: on no board)."""
    condition = kind.board_id.is_not_distinct_from(board_id)
    return Selection(kind, condition if owner is None else condition & (kind.user_id == owner))


async def list_locations(connection: AsyncConnection, selection: Selection) -> list[ImageLocation]:
    """Return the file locations of selected records."""
    rows = await connection.execute(selection.kind.location.where(selection.condition), selection.parameters)
    return [ImageLocation(*row) for row in rows]


async def delete_selection(connection: AsyncConnection, selection: Selection) -> list[AffectedItem]:
    """Delete the selected records, and return them."""
    kind = selection.kind
    statement = delete(kind.table).where(selection.condition).returning(*kind.change_columns)
    return _to_affected_items((await connection.execute(statement, selection.parameters)).all())


async def count_intermediates(source: Source, owner: str | None = None) -> int:
    """Count the intermediates of all users or of one owner."""
    return await count(source, ImageFilter(is_intermediate=True, owner=owner))


@cache
def _before_move(kind: MediaKind) -> PreparedStatement:
    return PreparedStatement(select(*kind.change_columns).where(kind.name.in_(_NAME_LIST)))


@cache
def _move(kind: MediaKind) -> PreparedStatement:
    """Return the statement; it skips items already on the board, as an update takes as long without a change."""
    board = bindparam("board", type_=Text, required=False)
    elsewhere = kind.board_id.is_distinct_from(board)
    return PreparedStatement(update(kind.table).where(kind.name.in_(_NAME_LIST), elsewhere).values(board_id=board))


async def move_to_board(
    connection: AsyncConnection, names: Sequence[str], board_id: str | None, kind: MediaKind = IMAGES
) -> list[AffectedItem]:
    """Move those of `names` that exist to a board (None: to none); return them with the boards they were on before."""
    items = _to_affected_items(await _before_move(kind).rows(connection, **_names(names)))
    await _move(kind).rows(connection, **_names(names), board=board_id)
    return items
