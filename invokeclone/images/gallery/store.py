"""Galleries in SQL: the indexes of images and of videos, merged in the order that is asked for. Nothing is sorted.

SQLite merges what comes in the right order already. An index of either table starts with whether a thing is an intermediate and
whether it is starred; where the order does not, each of their values is a branch of its own (`_branches`).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    text,
    union_all,
)

from invokeclone.images import late, search, store
from invokeclone.images import names as lists
from invokeclone.images.filters import conditions
from invokeclone.images.kinds import IMAGES, VIDEOS, Kind
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.prepared import Prepared, Source

BOTH = (IMAGES, VIDEOS)
_SHOWN = ("width", "height", "starred", "is_intermediate", "board_id", "created_at")


def _branches(
    wanted: ImageFilter, kinds: Sequence[Kind], parts: Mapping[Kind, list[ColumnElement[bool]]]
) -> list[Select[Any]]:
    """Return selects of what the list (or a part of it) holds, each of which an index yields in the list's order."""
    as_indexed = wanted.starred_first and wanted.order_dir is SQLiteDirection.Descending and not wanted.created_date
    as_indexed = as_indexed or wanted.text_query is not None  # the few that the text index finds are sorted
    steps = (False, True) if wanted.is_intermediate is None else (wanted.is_intermediate,)
    return [
        select(
            kind.table.c.starred.label("starred"),
            kind.table.c.created_at.label("created_at"),
            kind.tie.label("tie"),
            kind.name.label("name"),
            literal_column(f"'{kind.word}'").label("kind"),
        ).where(
            *conditions(wanted.model_copy(update={"is_intermediate": step}), kind),
            *([] if starred is None else [kind.table.c.starred == starred]),
            *parts.get(kind, []),
        )
        for kind in kinds
        for step in steps
        for starred in ((None,) if as_indexed else (True, False))
    ]


def _merged(
    wanted: ImageFilter, kinds: Sequence[Kind], *, backwards: bool = False, from_day: bool = False
) -> CompoundSelect[Any] | Select[Any]:
    """Return the select of a list in its order: starred first if wished, then by time, then by kind, then by name."""
    newest_first = late.newest_first(wanted, backwards=backwards)
    order = [f"{key} {'DESC' if newest_first else 'ASC'}" for key in ("created_at", "tie")]
    if wanted.starred_first:
        order.insert(0, "starred ASC" if backwards else "starred DESC")
    parts = {kind: late.conditions(wanted, kind, backwards=backwards) for kind in kinds} if from_day else {}
    branches = _branches(wanted, kinds, parts)
    merged = branches[0] if len(branches) == 1 else union_all(*branches)
    return merged.order_by(*[text(key) for key in order])


@lru_cache(maxsize=store.SHAPES)
def page_refs(
    wanted: ImageFilter, *, backwards: bool = False, from_day: bool = False
) -> CompoundSelect[Any] | Select[Any]:
    """Return the statement that finds kinds and names of a `late.Part`, without or with a day."""
    merged = _merged(wanted, BOTH, backwards=backwards, from_day=from_day)
    return merged.limit(bindparam("take", type_=Integer, required=False)).offset(
        bindparam("skip", type_=Integer, required=False)
    )


@lru_cache(maxsize=store.SHAPES)
def _prepared_refs(wanted: ImageFilter, *, backwards: bool, from_day: bool) -> Prepared:
    return Prepared(page_refs(wanted, backwards=backwards, from_day=from_day))


def all_names(wanted: ImageFilter, kinds: tuple[Kind, ...] = BOTH, *, with_kinds: bool = False) -> Select[Any]:
    """Return the statement that gathers all names of a list in its order (or kinds and names), and their number."""
    listed = _merged(wanted, kinds).subquery()
    item = func.json_object("kind", listed.c.kind, "name", listed.c.name) if with_kinds else listed.c.name
    return lists.gathered(listed, item)


@lru_cache(maxsize=store.SHAPES)
def _prepared_names(wanted: ImageFilter, kinds: tuple[Kind, ...], *, with_kinds: bool) -> Prepared:
    return Prepared(all_names(wanted, kinds, with_kinds=with_kinds))


_ANY_VIDEO = Prepared(select(VIDEOS.name).limit(literal_column("1")))


async def _there(source: Source, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """Return the kinds without videos where there are none at all: merging them costs as much as reading the images."""
    if VIDEOS in kinds and len(kinds) > 1 and await _ANY_VIDEO.first(source) is None:
        return tuple(kind for kind in kinds if kind is not VIDEOS)
    return kinds


async def names_json(
    source: Source,
    wanted: ImageFilter,
    key: str,
    kinds: tuple[Kind, ...] = BOTH,
    *,
    with_kinds: bool = False,
) -> list[bytes]:
    """Return all names of a list (or kinds and names) under `key`, with what is counted of it, as JSON in pieces to be joined."""
    kinds = await _there(source, kinds)
    starred = await store.count_starred(source, wanted, kinds)
    statement = _prepared_names(wanted, kinds, with_kinds=with_kinds)
    return await lists.document(source, statement, key, starred)


async def page_json(source: Source, wanted: ImageFilter, offset: int, limit: int) -> bytes:
    """Return a page as the JSON of `OffsetPaginatedResults[GalleryItem]`."""
    total = sum([await store.count(source, wanted, kind) for kind in BOTH])
    part = await store.page_part(source, wanted, BOTH, offset, limit, total)
    statement = _prepared_refs(search.for_a_page(wanted), backwards=part.backwards, from_day=part.day is not None)
    rows = await statement.rows(source, **part.values)
    refs = [(kind, name) for *_, name, kind in (reversed(rows) if part.backwards else rows)]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in BOTH:
        found |= await _items(source, kind, [name for word, name in refs if word == kind.word])
    return orjson.dumps({"limit": limit, "offset": offset, "total": total, "items": [found[ref] for ref in refs]})


async def _items(source: Source, kind: Kind, names: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the named things of a kind as `GalleryItem` has them."""
    items = {}
    for record in await store.by_names(source, kind, names) if names else []:
        name = record[f"{kind.word}_name"]
        items[kind.word, name] = {
            "kind": kind.word,
            "name": name,
            "full_url": record[f"{kind.word}_url"],
            "thumbnail_url": record["thumbnail_url"],
            "category": record[f"{kind.word}_category"],
            "duration": record.get("duration"),
            "fps": record.get("fps"),
            **{key: record[key] for key in _SHOWN},
        }
    return items
