"""What a user may see and change: the rules for images, videos, boards, queue items, workflows, presets and system prompts.

* An administrator sees and changes everything. Without accounts everybody is one.
* Anybody else sees their own records and those that are public (`is_public`, or part of the application).
* Anybody else changes their own records only. Records that are part of the application belong to nobody.
* Images and videos: anybody sees what is on a shared or public board, and changes what is on their own boards and on public
  ones. The owner of a private board does not see what others have left on it.

As Python conditions for records that are loaded, and as SQL conditions for lists. Errors are the packages' own.
"""

from typing import Any, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, ScalarSelect, Select, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.tables import boards, users
from invokeclone.users.current import SYSTEM, User

PUBLIC = "public"
SHARED = ("shared", PUBLIC)
"""Board visibilities with which anybody sees the board and what is on it."""

UserId: TypeAlias = str | BindParameter[Any]


def scope(user: User) -> str | None:
    """Return whose records `user` is restricted to; None: everybody's."""
    return None if user.is_admin else user.user_id


def owns(user: User, owner_id: str) -> bool:
    """Tell whether `user` may change a record of `owner_id`."""
    return user.is_admin or user.user_id == owner_id


def may_read(user: User, owner_id: str, *, is_public: bool) -> bool:
    """Tell whether `user` may see a record of `owner_id`."""
    return is_public or owns(user, owner_id)


async def acting_user(connection: AsyncConnection, user_id: str) -> User:
    """Return the user for whom something runs without a request; an account that is deleted is no administrator."""
    if user_id == SYSTEM.user_id:
        return SYSTEM
    is_admin = await connection.scalar(select(users.c.is_admin).where(users.c.user_id == user_id))
    return User(user_id=user_id, is_admin=bool(is_admin))


# Boards, and what is on them


def is_visible_board(user_id: UserId) -> ColumnElement[bool]:
    """Return the condition of the boards that a user who is no administrator sees."""
    return or_(boards.c.user_id == user_id, boards.c.board_visibility.in_(SHARED))


def visible_boards(user: User) -> list[ColumnElement[bool]]:
    """Return the conditions of the boards that `user` sees."""
    return [] if user.is_admin else [is_visible_board(user.user_id)]


def may_use_board(user: User, owner_id: str, visibility: str, open_to_all: tuple[str, ...]) -> bool:
    """Tell whether `user` may use a board of `owner_id` in the way that everybody may with the visibilities `open_to_all`."""
    return owns(user, owner_id) or visibility in open_to_all


def fillable_board_id(user_id: UserId, board_id: BindParameter[Any], *, system: bool) -> ScalarSelect[Any]:
    """Select the id of a board if it exists and the images of a user (or of the `system`) may be put on it, else null."""
    statement = select(boards.c.board_id).where(boards.c.board_id == board_id)
    if not system:
        admins = select(users.c.user_id).where(users.c.user_id == user_id, users.c.is_admin == literal_column("1"))
        statement = statement.where(or_(_is_fillable_board(user_id), admins.correlate(None).exists()))
    return statement.scalar_subquery()


def may_read_image(owner: ColumnElement[Any], board_id: ColumnElement[Any], user_id: UserId) -> ColumnElement[bool]:
    """Return the condition that a user who is no administrator may see an image or video with this owner and board."""
    shared = _board(board_id).where(boards.c.board_visibility.in_(SHARED))
    return or_(owner == user_id, shared.exists())


def may_change_image(owner: ColumnElement[Any], board_id: ColumnElement[Any], user_id: UserId) -> ColumnElement[bool]:
    """Return the condition that a user who is no administrator may change or delete an image or video."""
    fillable = _board(board_id).where(_is_fillable_board(user_id))
    return or_(owner == user_id, fillable.exists())


def _board(board_id: ColumnElement[Any]) -> Select[Any]:
    return select(boards.c.board_id).where(boards.c.board_id == board_id)


def _is_fillable_board(user_id: UserId) -> ColumnElement[bool]:
    return or_(boards.c.user_id == user_id, boards.c.board_visibility == PUBLIC)
