"""Access rights: the rules for images, videos, boards, queue items, workflows, presets and system prompts.

* Administrators see and change everything. Without accounts every user is one.
* Other users see their own records and those that are public (`is_public`, or part of the application).
* Other users change only their own records. Records that are part of the application have no owner.
* Images and videos: any user sees the content of shared and public boards, and changes the content of their own boards
  and of public ones. The owner of a private board does not see what other users left on it.

The rules exist as Python conditions for loaded records and as SQL conditions for lists. The errors are those of each
package.
"""

from typing import Any, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, ScalarSelect, Select, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.tables import boards, users
from invokeclone.users.current import SYSTEM, User

PUBLIC = "public"
SHARED = ("shared", PUBLIC)
"""Visibilities of boards whose content any user may see."""

UserId: TypeAlias = str | BindParameter[Any]


def scope(user: User) -> str | None:
    """Return the owner that the records of `user` are restricted to; None: all owners."""
    return None if user.is_admin else user.user_id


def owns(user: User, owner_id: str) -> bool:
    """Return whether `user` may change a record of `owner_id`."""
    return user.is_admin or user.user_id == owner_id


def may_read(user: User, owner_id: str, *, is_public: bool) -> bool:
    """Return whether `user` may see a record of `owner_id`."""
    return is_public or owns(user, owner_id)


async def acting_user(connection: AsyncConnection, user_id: str) -> User:
    """Return the user for work outside a request; a deleted account has no admin rights."""
    if user_id == SYSTEM.user_id:
        return SYSTEM
    is_admin = await connection.scalar(select(users.c.is_admin).where(users.c.user_id == user_id))
    return User(user_id=user_id, is_admin=bool(is_admin))


# Boards and their content


def is_visible_board(user_id: UserId) -> ColumnElement[bool]:
    """Return the SQL condition for the boards visible to a user who is not an administrator."""
    return or_(boards.c.user_id == user_id, boards.c.board_visibility.in_(SHARED))


def visible_boards(user: User) -> list[ColumnElement[bool]]:
    """Return the SQL conditions for the boards visible to `user`."""
    return [] if user.is_admin else [is_visible_board(user.user_id)]


def may_use_board(user: User, owner_id: str, visibility: str, open_to_all: tuple[str, ...]) -> bool:
    """Return whether `user` may use a board of `owner_id`, given the visibilities that open this use to all users."""
    return owns(user, owner_id) or visibility in open_to_all


def fillable_board_id(user_id: UserId, board_id: BindParameter[Any], *, system: bool) -> ScalarSelect[Any]:
    """Select the id of a board if it exists and a user (or `system`) may add images to it, else null."""
    statement = select(boards.c.board_id).where(boards.c.board_id == board_id)
    if not system:
        admins = select(users.c.user_id).where(users.c.user_id == user_id, users.c.is_admin == literal_column("1"))
        statement = statement.where(or_(_is_fillable_board(user_id), admins.correlate(None).exists()))
    return statement.scalar_subquery()


def may_read_image(owner: ColumnElement[Any], board_id: ColumnElement[Any], user_id: UserId) -> ColumnElement[bool]:
    """Return the SQL condition for images or videos visible to a user without admin rights, by owner and board."""
    shared = _board(board_id).where(boards.c.board_visibility.in_(SHARED))
    return or_(owner == user_id, shared.exists())


def may_change_image(owner: ColumnElement[Any], board_id: ColumnElement[Any], user_id: UserId) -> ColumnElement[bool]:
    """Return the SQL condition for images or videos that a user who is not an administrator may change or delete."""
    fillable = _board(board_id).where(_is_fillable_board(user_id))
    return or_(owner == user_id, fillable.exists())


def _board(board_id: ColumnElement[Any]) -> Select[Any]:
    return select(boards.c.board_id).where(boards.c.board_id == board_id)


def _is_fillable_board(user_id: UserId) -> ColumnElement[bool]:
    return or_(boards.c.user_id == user_id, boards.c.board_visibility == PUBLIC)
