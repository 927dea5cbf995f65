"""What is true of everything in a list of images or of videos, as conditions in SQL; it knows no order and no page."""

from sqlalchemy import ColumnElement, func, literal_column, or_

from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.kinds import IMAGES, MediaKind
from invokeclone.images.lists import search
from invokeclone.images.schemas import NO_BOARD, ImageFilter


def are_assets(wanted: ImageFilter, kind: MediaKind) -> bool:
    """Return whether a list of everybody's holds images of other categories than the general one alone, and not of one board.

    Few images are assets: they have an index of their own, and a list of them does not go through all others.
    """
    if kind is not IMAGES or wanted.categories is None or wanted.owner is not None:
        return False
    return ImageCategory.GENERAL not in wanted.categories and wanted.board_id in (None, NO_BOARD)


def conditions(wanted: ImageFilter, kind: MediaKind = IMAGES) -> list[ColumnElement[bool]]:
    """Return what is true of everything in a list."""
    found = _on_board(wanted, kind)
    if wanted.owner is not None:
        found += [kind.user_id == wanted.owner, kind.owned]
    if wanted.is_intermediate is not None:
        found.append(kind.table.c.is_intermediate == wanted.is_intermediate)
    if wanted.categories is not None:
        found.append(kind.category.in_(wanted.categories))
    if wanted.origin is not None:
        found.append(kind.origin == wanted.origin)
    if wanted.created_date is not None:
        # A time goes on after its date with a blank, and "!" is what comes after a blank.
        found.append(kind.table.c.created_at.between(f"{wanted.created_date} ", f"{wanted.created_date}!"))
    if wanted.text_query and kind is IMAGES:
        found = [search.candidates(wanted.text_query), *map(search.unindexed, found)]
    if wanted.search_term:
        found.append(_mentions(wanted.search_term, kind))
    return found


def _on_board(wanted: ImageFilter, kind: MediaKind) -> list[ColumnElement[bool]]:
    if wanted.board_id is not None and wanted.board_id != NO_BOARD:
        return [kind.board_id == wanted.board_id]
    on_none: list[ColumnElement[bool]] = [kind.board_id.is_(None)] if wanted.board_id == NO_BOARD else []
    if not are_assets(wanted, kind):
        return on_none
    return [kind.category != literal_column(f"'{ImageCategory.GENERAL.value}'"), *map(search.unindexed, on_none)]


def _mentions(term: str, kind: MediaKind) -> ColumnElement[bool]:
    """Match metadata or time in any case; letters may be written out or as JSON escapes, `%` and `_` stand for anything."""
    texts = kind.table.c.metadata
    if not term.isascii():  # LIKE knows the case of ASCII only
        return or_(*[func.folded_like(texts, f"%{form}%") == 1 for form in search.plain_forms(term)])
    in_time = [kind.table.c.created_at.like(f"%{term}%")] if search.IN_A_TIME.fullmatch(term) else []
    return or_(*in_time, *[texts.like(f"%{form}%") for form in search.forms(term)])
