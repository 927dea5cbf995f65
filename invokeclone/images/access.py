"""Who may see and change what: the rules of images, videos and boards, as conditions in SQL and as checks.

Admins may do everything, and in single-user mode everybody is one: then nothing here asks the database, save an admin's
account whether a board exists. Anybody else sees their own things and what is on a shared or public board, and changes their
own things, what is on their own boards and what is on a public board. The owner of a private board does not see what others
have left on it.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, ScalarSelect, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images.errors import BoardNotFound, NotYourBoard, NotYours
from invokeclone.images.kinds import IMAGES as IMAGES
from invokeclone.images.kinds import VIDEOS as VIDEOS
from invokeclone.images.kinds import Kind as Kind
from invokeclone.images.schemas import NO_BOARD
from invokeclone.kit.prepared import Prepared, Source, json_list, members, parameter
from invokeclone.tables import boards, users
from invokeclone.users.current import SYSTEM, User

PUBLIC = "public"
SHARED = ("shared", PUBLIC)


class Allowed(NamedTuple):
    """The names of a list that a user may act on, and those that exist and are somebody else's."""

    names: list[str]
    refused: list[str]


def owner(user: User) -> str | None:
    """Return whose own things `user` is bound to; None: everybody's."""
    return None if user.is_admin else user.user_id


async def acting(connection: AsyncConnection, user_id: str) -> User:
    """Return the user for whom something runs without a request; one who is gone is no admin."""
    if user_id == SYSTEM.user_id:
        return SYSTEM
    is_admin = await connection.scalar(select(users.c.is_admin).where(users.c.user_id == user_id))
    return User(user_id=user_id, is_admin=bool(is_admin))


# Conditions


UserId: TypeAlias = str | BindParameter[Any]
Condition = Callable[[Kind, UserId], ColumnElement[bool]]


def may_read(kind: Kind, user_id: UserId) -> ColumnElement[bool]:
    """Return the condition that a user who is no admin may see a thing."""
    shared = select(boards.c.board_id).where(boards.c.board_id == kind.board_id, boards.c.board_visibility.in_(SHARED))
    return or_(kind.user_id == user_id, shared.exists())


def may_change(kind: Kind, user_id: UserId) -> ColumnElement[bool]:
    """Return the condition that a user who is no admin may change or delete a thing."""
    return or_(kind.user_id == user_id, _boards_to_fill(user_id).where(boards.c.board_id == kind.board_id).exists())


def _boards_to_fill(user_id: UserId) -> Any:
    own = or_(boards.c.user_id == user_id, boards.c.board_visibility == PUBLIC)
    return select(boards.c.board_id).where(own)


def visible_boards(user: User) -> list[ColumnElement[bool]]:
    """Return the conditions of the boards that `user` sees."""
    if user.is_admin:
        return []
    return [is_visible_board(user.user_id)]


def is_visible_board(user_id: UserId) -> ColumnElement[bool]:
    """Return the condition of the boards that a user who is no admin sees."""
    return or_(boards.c.user_id == user_id, boards.c.board_visibility.in_(SHARED))


def board_for(user_id: UserId, board_id: BindParameter[Any], *, system: bool) -> ScalarSelect[Any]:
    """Select the id of a board if it exists and things of this user (or of the `system`) may be put on it, else null."""
    found = select(boards.c.board_id).where(boards.c.board_id == board_id)
    if not system:
        admins = select(users.c.user_id).where(users.c.user_id == user_id, users.c.is_admin == literal_column("1"))
        found = found.where(
            or_(boards.c.user_id == user_id, boards.c.board_visibility == PUBLIC, admins.correlate(None).exists())
        )
    return found.scalar_subquery()


# Things


async def require_readable(source: Source, user: User, kind: Kind, name: str) -> None:
    """Raise NotYours when `user` may not see the thing; one that does not exist is left to the next step."""
    await _require(source, user, kind, name, may_read)


async def require_changeable(connection: AsyncConnection, user: User, kind: Kind, name: str) -> None:
    """Raise NotYours when `user` may not change the thing; one that does not exist is left to the next step."""
    await _require(connection, user, kind, name, may_change)


async def _require(source: Source, user: User, kind: Kind, name: str, condition: Condition) -> None:
    if user.is_admin:
        return
    if await _foreign(kind, condition).first(source, name=name, user_id=user.user_id) is not None:
        raise NotYours(name)


@cache
def _foreign(kind: Kind, condition: Condition) -> Prepared:
    return Prepared(select(kind.name).where(kind.named, ~condition(kind, parameter("user_id"))))


async def readable(source: Source, user: User, kind: Kind, names: Sequence[str]) -> Allowed:
    """Divide `names` by whether `user` may see what they name."""
    return await _divide(source, user, kind, names, may_read)


async def changeable(connection: AsyncConnection, user: User, kind: Kind, names: Sequence[str]) -> Allowed:
    """Divide `names` by whether `user` may change what they name."""
    return await _divide(connection, user, kind, names, may_change)


async def movable(connection: AsyncConnection, user: User, kind: Kind, names: Sequence[str]) -> Allowed:
    """Divide `names` by whether `user` may put what they name on another board: one's own things only."""
    return await _divide(connection, user, kind, names, _is_own)


def _is_own(kind: Kind, user_id: UserId) -> ColumnElement[bool]:
    return kind.user_id == user_id


async def _divide(source: Source, user: User, kind: Kind, names: Sequence[str], condition: Condition) -> Allowed:
    """Ask for those that exist and are refused; names of nothing stay among the allowed, where nothing finds them."""
    unique = list(dict.fromkeys(names))
    if user.is_admin or not unique:
        return Allowed(unique, [])
    rows = await _foreign_among(kind, condition).rows(source, names=json_list(unique), user_id=user.user_id)
    found = {row[0] for row in rows}
    return Allowed([name for name in unique if name not in found], [name for name in unique if name in found])


@cache
def _foreign_among(kind: Kind, condition: Condition) -> Prepared:
    return Prepared(select(kind.name).where(kind.name.in_(members("names")), ~condition(kind, parameter("user_id"))))


# Boards


async def list_owner(source: Source, user: User, board_id: str | None) -> str | None:
    """Return whose things a list holds: None for everybody's, else a user's own.

    A list of a shared or public board holds everybody's; one of a private board, of no board or of whatever board only the
    user's own. Raises BoardNotFound, NotYourBoard; in single-user mode the list of a board that does not exist is empty.
    """
    if board_id is None or board_id == NO_BOARD or user == SYSTEM:
        return owner(user)
    _, visibility = await _board(source, user, board_id, SHARED)
    return None if visibility in SHARED else owner(user)


async def require_board_readable(source: Source, user: User, board_id: str) -> None:
    """Raise BoardNotFound, or NotYourBoard when `user` may not see the board; admins are not asked."""
    if not user.is_admin:
        await _board(source, user, board_id, SHARED)


async def require_board_fillable(connection: AsyncConnection, user: User, board_id: str) -> None:
    """Raise BoardNotFound, or NotYourBoard when `user` may not put things on the board; admins are not asked."""
    if not user.is_admin:
        await _board(connection, user, board_id, (PUBLIC,))


async def require_board_owned(connection: AsyncConnection, user: User, board_id: str) -> None:
    """Raise BoardNotFound, or NotYourBoard when `user` may not change the board itself; admins are not asked."""
    if not user.is_admin:
        await _board(connection, user, board_id, ())


_BOARD = Prepared(select(boards.c.user_id, boards.c.board_visibility).where(boards.c.board_id == parameter("board_id")))


async def _board(source: Source, user: User, board_id: str, open_to_all: tuple[str, ...]) -> tuple[str, str]:
    """Return a board's owner and visibility; raises BoardNotFound, or NotYourBoard when neither allows it."""
    row = await _BOARD.first(source, board_id=board_id)
    if row is None:
        raise BoardNotFound(board_id)
    owner_id, visibility = row
    if not user.is_admin and owner_id != user.user_id and visibility not in open_to_all:
        raise NotYourBoard(board_id)
    return owner_id, visibility
