"""SQL conditions of the filters of image and video lists."""

from sqlalchemy import ColumnElement, func, literal_column, or_

from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.lists import search
from invokeclone.images.media_kinds import IMAGES, MediaKind
from invokeclone.images.schemas import NO_BOARD, ImageFilter


def are_assets(image_filter: ImageFilter, kind: MediaKind) -> bool:
    """Return whether a list over all owners contains only asset categories, on all boards or on none.

    Few images are assets: they have their own index, so that a list of them does not scan all other images.
    """
    if kind is not IMAGES or image_filter.categories is None or image_filter.owner is not None:
        return False
    return ImageCategory.GENERAL not in image_filter.categories and image_filter.board_id in (None, NO_BOARD)


def conditions(image_filter: ImageFilter, kind: MediaKind = IMAGES) -> list[ColumnElement[bool]]:
    """Return the conditions for the items of a list."""
    clauses = _on_board(image_filter, kind)
    if image_filter.owner is not None:
        clauses += [kind.user_id == image_filter.owner, kind.is_user_owned]
    if image_filter.is_intermediate is not None:
        clauses.append(kind.table.c.is_intermediate == image_filter.is_intermediate)
    if image_filter.categories is not None:
        clauses.append(kind.category.in_(image_filter.categories))
    if image_filter.origin is not None:
        clauses.append(kind.origin == image_filter.origin)
    if image_filter.created_date is not None:
        # In a time, the date is followed by a space, and "!" is the next character after the space.
        clauses.append(
            kind.table.c.created_at.between(f"{image_filter.created_date} ", f"{image_filter.created_date}!")
        )
    if image_filter.text_query and kind is IMAGES:
        clauses = [search.candidates(image_filter.text_query), *map(search.without_index, clauses)]
    if image_filter.search_term:
        clauses.append(_mentions(image_filter.search_term, kind))
    return clauses


def _on_board(image_filter: ImageFilter, kind: MediaKind) -> list[ColumnElement[bool]]:
    if image_filter.board_id is not None and image_filter.board_id != NO_BOARD:
        return [kind.board_id == image_filter.board_id]
    without_board: list[ColumnElement[bool]] = [kind.board_id.is_(None)] if image_filter.board_id == NO_BOARD else []
    if not are_assets(image_filter, kind):
        return without_board
    return [
        kind.category != literal_column(f"'{ImageCategory.GENERAL.value}'"),
        *map(search.without_index, without_board),
    ]


def _mentions(term: str, kind: MediaKind) -> ColumnElement[bool]:
    """Match metadata or time, case-insensitively; letters may be plain or JSON escapes; `%` and `_` are wildcards."""
    texts = kind.table.c.metadata
    if not term.isascii():  # LIKE folds the case of ASCII only
        return or_(*[func.folded_like(texts, f"%{form}%") == 1 for form in search.plain_forms(term)])
    in_time = (
        [func.like_ignoring_case(kind.table.c.created_at, f"%{term}%")] if search.IN_A_TIME.fullmatch(term) else []
    )
    return or_(*in_time, *[func.like_ignoring_case(texts, f"%{form}%") for form in search.forms(term)])
