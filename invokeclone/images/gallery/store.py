"""SQL for galleries: lists of images and videos, merged from their indexes (lists/queries.py)."""

from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import CompoundSelect, Select, bindparam, func, literal_column, select

from invokeclone.images import store
from invokeclone.images.lists import name_lists, queries, search
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source
from invokeclone.kit.sql.types import RowCount

ALL_KINDS = (IMAGES, VIDEOS)
_SHARED_FIELDS = ("width", "height", "starred", "is_intermediate", "board_id", "created_at")


@lru_cache(maxsize=store.STATEMENT_CACHE_SIZE)
def page_refs(
    image_filter: ImageFilter, *, backwards: bool = False, from_day: bool = False
) -> CompoundSelect[Any] | Select[Any]:
    """Return the statement for kinds and names of a `ListPart`, optionally from a day on."""
    listed = queries.select_ordered(image_filter, ALL_KINDS, backwards=backwards, from_day=from_day)
    return listed.limit(bindparam("take", type_=RowCount, required=False)).offset(
        bindparam("skip", type_=RowCount, required=False)
    )


@lru_cache(maxsize=store.STATEMENT_CACHE_SIZE)
def _prepare_refs(image_filter: ImageFilter, *, backwards: bool, from_day: bool) -> PreparedStatement:
    return PreparedStatement(page_refs(image_filter, backwards=backwards, from_day=from_day))


def all_names(
    image_filter: ImageFilter, kinds: tuple[MediaKind, ...] = ALL_KINDS, *, with_kinds: bool = False
) -> Select[Any]:
    """Return the statement for all names (or kinds and names) of a list in order, and their number."""
    listed = queries.select_ordered(image_filter, kinds).subquery()
    item = func.json_object("kind", listed.c.kind, "name", listed.c.name) if with_kinds else listed.c.name
    return name_lists.json_array_statement(listed, item)


@lru_cache(maxsize=store.STATEMENT_CACHE_SIZE)
def _prepare_names(image_filter: ImageFilter, kinds: tuple[MediaKind, ...], *, with_kinds: bool) -> PreparedStatement:
    return PreparedStatement(all_names(image_filter, kinds, with_kinds=with_kinds))


_ANY_VIDEO = PreparedStatement(select(VIDEOS.name).limit(literal_column("1")))


async def _nonempty_kinds(source: Source, kinds: tuple[MediaKind, ...]) -> tuple[MediaKind, ...]:
    """Return `kinds` without videos if there are none: merging empty videos takes as long as reading the images."""
    if VIDEOS in kinds and len(kinds) > 1 and await _ANY_VIDEO.first(source) is None:
        return tuple(kind for kind in kinds if kind is not VIDEOS)
    return kinds


async def names_json(
    source: Source,
    image_filter: ImageFilter,
    key: str,
    kinds: tuple[MediaKind, ...] = ALL_KINDS,
    *,
    with_kinds: bool = False,
) -> list[bytes]:
    """Return all names (or kinds and names) of a list under `key`, with its counts, as JSON in pieces to be joined."""
    kinds = await _nonempty_kinds(source, kinds)
    starred = await store.count_starred(source, image_filter, kinds)
    statement = _prepare_names(image_filter, kinds, with_kinds=with_kinds)
    return await name_lists.document(source, statement, key, starred)


async def page_json(source: Source, image_filter: ImageFilter, offset: int, limit: int) -> bytes:
    """Return a page as the JSON of `OffsetPaginatedResults[GalleryItem]`."""
    total = sum([await store.count(source, image_filter, kind) for kind in ALL_KINDS])
    refs = await _page_refs(source, image_filter, offset, limit, total) if offset < total and limit else []
    items: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in ALL_KINDS:
        items |= await _items(source, kind, [name for type_name, name in refs if type_name == kind.type_name])
    return orjson.dumps({"limit": limit, "offset": offset, "total": total, "items": [items[ref] for ref in refs]})


async def _page_refs(
    source: Source, image_filter: ImageFilter, offset: int, limit: int, total: int
) -> list[tuple[str, str]]:
    """Return kinds and names of a page of a list of `total` items."""
    part = await store.page_part(source, image_filter, ALL_KINDS, offset, limit, total)
    statement = _prepare_refs(search.for_page(image_filter), backwards=part.backwards, from_day=part.day is not None)
    rows = await statement.rows(source, **part.values)
    return [(kind, name) for *_, name, kind in (reversed(rows) if part.backwards else rows)]


async def _items(source: Source, kind: MediaKind, names: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the named items of a kind as `GalleryItem` dicts."""
    items = {}
    for record in await store.by_names(source, kind, names) if names else []:
        name = record[f"{kind.type_name}_name"]
        items[kind.type_name, name] = {
            "kind": kind.type_name,
            "name": name,
            "full_url": record[f"{kind.type_name}_url"],
            "thumbnail_url": record["thumbnail_url"],
            "category": record[f"{kind.type_name}_category"],
            "duration": record.get("duration"),
            "fps": record.get("fps"),
            **{key: record[key] for key in _SHARED_FIELDS},
        }
    return items
