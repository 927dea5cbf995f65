"""Ordered lists of images and videos, read from indexes without sorting.

SQLite merges branches that are sorted already. Where no single index has a list in its order, it is split into
branches: starred and unstarred, intermediates and others, images and videos.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, literal_column, select, text

from invokeclone.images.lists import deep_pages
from invokeclone.images.lists.filters import are_assets, conditions
from invokeclone.images.media_kinds import IMAGES, MediaKind
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.sql.ordered_unions import merge_ordered


def select_ordered(
    image_filter: ImageFilter, kinds: Sequence[MediaKind], *, backwards: bool = False, from_day: bool = False
) -> CompoundSelect[Any] | Select[Any]:
    """Select a list in order: starred first if requested, then by time, then by kind, then by name.

    Its columns are `starred` (only if that comes first), `created_at`, `tie`, `name` and `kind`; with `from_day` it is
    the part of a `ListPart` with a day.
    """
    newest_first = deep_pages.newest_first(image_filter, backwards=backwards)
    order = [f"{key} {'DESC' if newest_first else 'ASC'}" for key in ("created_at", "tie")]
    if image_filter.starred_first:
        order.insert(0, "starred ASC" if backwards else "starred DESC")
    parts = {kind: deep_pages.conditions(image_filter, kind, backwards=backwards) for kind in kinds} if from_day else {}
    branches = _branches(image_filter, kinds, parts)
    merged = branches[0] if len(branches) == 1 else merge_ordered(*branches)
    return merged.order_by(*[text(key) for key in order])


def _branches(
    image_filter: ImageFilter, kinds: Sequence[MediaKind], parts: Mapping[MediaKind, list[ColumnElement[bool]]]
) -> list[Select[Any]]:
    """Return selects of the list's content (or of a part), each in list order by an index."""
    return [
        select(
            *([kind.table.c.starred.label("starred")] if image_filter.starred_first else []),
            kind.table.c.created_at.label("created_at"),
            kind.tiebreaker.label("tie"),
            kind.name.label("name"),
            literal_column(f"'{kind.type_name}'").label("kind"),
        ).where(
            *conditions(image_filter.model_copy(update={"is_intermediate": step}), kind),
            *([] if starred is None else [kind.table.c.starred == starred]),
            *parts.get(kind, []),
        )
        for kind in kinds
        for step in _steps(image_filter, kind)
        for starred in _stars(image_filter, kind, from_day=kind in parts)
    ]


def _steps(image_filter: ImageFilter, kind: MediaKind) -> Iterator[bool | None]:
    """Yield the values of `is_intermediate` that get their own branch; None stands for both."""
    if image_filter.is_intermediate is not None:
        yield image_filter.is_intermediate
    elif kind is IMAGES and (image_filter.text_query is not None or _is_everything(image_filter)):
        yield None
    else:
        yield from (False, True)


def _stars(image_filter: ImageFilter, kind: MediaKind, *, from_day: bool) -> Iterator[bool | None]:
    """Yield the values of `starred` that get their own branch; None stands for both."""
    if kind is IMAGES and image_filter.text_query is not None:  # the few matches of the text index are sorted
        as_indexed = True
    elif image_filter.starred_first:  # a part from a day on has no starred items
        as_indexed = from_day or (
            image_filter.order_dir is SQLiteDirection.Descending and not image_filter.created_date
        )
    else:
        as_indexed = kind is IMAGES and _is_by_time(image_filter)
    yield from (None,) if as_indexed else (True, False)


def _is_everything(image_filter: ImageFilter) -> bool:
    """Return whether there is no filter but a text: then an index of all images has both intermediates and others."""
    criteria = (
        image_filter.owner,
        image_filter.origin,
        image_filter.categories,
        image_filter.board_id,
        image_filter.created_date,
    )
    return all(value is None for value in criteria)


def _is_by_time(image_filter: ImageFilter) -> bool:
    """Return whether an index has starred images in order of time: for lists without board and owner filters.

    It does not serve the list of all images with intermediates, nor assets, which have their own index.
    """
    return (
        image_filter.owner is None
        and image_filter.board_id is None
        and not are_assets(image_filter, IMAGES)
        and not (image_filter.is_intermediate is None and _is_everything(image_filter))
    )
