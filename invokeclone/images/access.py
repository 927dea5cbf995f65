"""Checks of the rights to images, videos and boards (`users.rights` has the rules).

Administrators (in single-user mode every user is one) are allowed without a database query, except that for the lists
of an administrator's account the board must exist.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.errors import BoardNotFound, ImageNotYours, NotYourBoard
from invokeclone.images.media_kinds import IMAGES as IMAGES
from invokeclone.images.media_kinds import VIDEOS as VIDEOS
from invokeclone.images.media_kinds import MediaKind as MediaKind
from invokeclone.images.schemas import NO_BOARD
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, json_list, members, parameter
from invokeclone.tables import boards
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User
from invokeclone.users.rights import PUBLIC, SHARED, UserId


class Allowed(NamedTuple):
    """Names of a list that a user may act on, and those of existing items that the user may not."""

    names: list[str]
    refused: list[str]


Condition = Callable[[MediaKind, UserId], ColumnElement[bool]]


def may_read(kind: MediaKind, user_id: UserId) -> ColumnElement[bool]:
    """Return the SQL condition for images or videos visible to a user who is not an administrator."""
    return rights.may_read_image(kind.user_id, kind.board_id, user_id)


def may_change(kind: MediaKind, user_id: UserId) -> ColumnElement[bool]:
    """Return the SQL condition for images or videos that a user who is not an administrator may change or delete."""
    return rights.may_change_image(kind.user_id, kind.board_id, user_id)


# Images and videos


async def require_readable(source: Source, user: User, kind: MediaKind, name: str) -> None:
    """Raise ImageNotYours when `user` may not see the item; does not check that it exists."""
    await _require(source, user, kind, name, may_read)


async def require_changeable(connection: AsyncConnection, user: User, kind: MediaKind, name: str) -> None:
    """Raise ImageNotYours when `user` may not change the item; does not check that it exists."""
    await _require(connection, user, kind, name, may_change)


async def _require(source: Source, user: User, kind: MediaKind, name: str, condition: Condition) -> None:
    if user.is_admin:
        return
    if await _foreign(kind, condition).first(source, name=name, user_id=user.user_id) is not None:
        raise ImageNotYours(name)


@cache
def _foreign(kind: MediaKind, condition: Condition) -> PreparedStatement:
    return PreparedStatement(select(kind.name).where(kind.has_name, ~condition(kind, parameter("user_id"))))


async def readable(source: Source, user: User, kind: MediaKind, names: Sequence[str]) -> Allowed:
    """Split `names` by whether `user` may see the items."""
    return await _divide(source, user, kind, names, may_read)


async def changeable(connection: AsyncConnection, user: User, kind: MediaKind, names: Sequence[str]) -> Allowed:
    """Split `names` by whether `user` may change the items."""
    return await _divide(connection, user, kind, names, may_change)


async def movable(connection: AsyncConnection, user: User, kind: MediaKind, names: Sequence[str]) -> Allowed:
    """Split `names` by whether `user` may move the items to another board: only their own."""
    return await _divide(connection, user, kind, names, _is_own)


def _is_own(kind: MediaKind, user_id: UserId) -> ColumnElement[bool]:
    return kind.user_id == user_id


async def _divide(source: Source, user: User, kind: MediaKind, names: Sequence[str], condition: Condition) -> Allowed:
    """Query the existing items that are refused; names without an item stay among the allowed ones."""
    unique = list(dict.fromkeys(names))
    if user.is_admin or not unique:
        return Allowed(unique, [])
    rows = await _foreign_among(kind, condition).rows(source, names=json_list(unique), user_id=user.user_id)
    refused = {row[0] for row in rows}
    return Allowed([name for name in unique if name not in refused], [name for name in unique if name in refused])


@cache
def _foreign_among(kind: MediaKind, condition: Condition) -> PreparedStatement:
    return PreparedStatement(
        select(kind.name).where(kind.name.in_(members("names")), ~condition(kind, parameter("user_id")))
    )


# Boards


async def list_owner(source: Source, user: User, board_id: str | None) -> str | None:
    """Return the owner that a list is restricted to, None for all owners.

    A list of a shared or public board contains the items of all users; one of a private board, of no board or of all
    boards only the user's own. Raises BoardNotFound, NotYourBoard; in single-user mode the list of a board that does
    not exist is empty.
    """
    if board_id is None or board_id == NO_BOARD or user == SYSTEM:
        return rights.scope(user)
    _, visibility = await _board(source, user, board_id, SHARED)
    return None if visibility in SHARED else rights.scope(user)


async def require_board_readable(source: Source, user: User, board_id: str) -> None:
    """Raise BoardNotFound, or NotYourBoard when `user` may not see the board; no check for admins."""
    if not user.is_admin:
        await _board(source, user, board_id, SHARED)


async def require_board_fillable(connection: AsyncConnection, user: User, board_id: str) -> None:
    """Raise BoardNotFound, or NotYourBoard when `user` may not add items to the board; no check for admins."""
    if not user.is_admin:
        await _board(connection, user, board_id, (PUBLIC,))


async def require_board_owned(connection: AsyncConnection, user: User, board_id: str) -> None:
    """Raise BoardNotFound, or NotYourBoard when `user` may not change the board itself; no check for admins."""
    if not user.is_admin:
        await _board(connection, user, board_id, ())


_BOARD = PreparedStatement(
    select(boards.c.user_id, boards.c.board_visibility).where(boards.c.board_id == parameter("board_id"))
)


async def _board(source: Source, user: User, board_id: str, open_to_all: tuple[str, ...]) -> tuple[str, str]:
    """Return a board's owner and visibility; raises BoardNotFound, or NotYourBoard when neither allows the use."""
    row = await _BOARD.first(source, board_id=board_id)
    if row is None:
        raise BoardNotFound(board_id)
    owner_id, visibility = row
    if not rights.may_use_board(user, owner_id, visibility, open_to_all):
        raise NotYourBoard(board_id)
    return owner_id, visibility
