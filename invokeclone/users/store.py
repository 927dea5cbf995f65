"""SQL for accounts."""

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.errors import BadRequest, NotFound
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.kit.times import now
from invokeclone.tables import app_state, users
from invokeclone.users.schemas import UserDTO
from invokeclone.users.signin import SECRET
from invokeclone.users.tokens import new_secret

SYSTEM_ID = "system"

_COLUMNS = (
    users.c.user_id,
    users.c.email,
    users.c.display_name,
    users.c.is_admin,
    users.c.is_active,
    users.c.created_at,
    users.c.updated_at,
    users.c.last_login_at,
    users.c.token_epoch,
)
_NEW_SECRET = PreparedStatement(
    insert_or(app_state).values(key=SECRET, value=parameter("secret")).on_conflict_do_nothing()
)
"""Prepared, because prepared statements are not logged by `log_sql`."""
_NOT_SYSTEM = users.c.user_id != SYSTEM_ID


class UserNotFound(NotFound):
    """No account has this id."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"User {user_id} not found")


class EmailTaken(BadRequest):
    """Another account has this address."""

    def __init__(self, email: str) -> None:
        super().__init__(f"A user with the address {email} exists already")


class UserCredentials(NamedTuple):
    """An account with the hash of its password."""

    user: UserDTO
    password_hash: str


def _user(row: RowMapping) -> UserDTO:
    """Convert a row; the `system` user is not a real account, and so no admin."""
    values = dict(row)
    last_login = values["last_login_at"]
    values["last_login_at"] = datetime.fromisoformat(last_login).replace(tzinfo=UTC) if last_login else None
    values["is_admin"] = values["is_admin"] and values["user_id"] != SYSTEM_ID
    return UserDTO(**{name: values[name] for name in UserDTO.model_fields})


async def has_admin(connection: AsyncConnection) -> bool:
    """Return whether there is an admin; the `system` user does not count."""
    return await _exists(connection, users.c.is_admin, _NOT_SYSTEM)


async def has_other_admin(connection: AsyncConnection, user_id: str) -> bool:
    """Return whether there is an active admin besides this one."""
    return await _exists(connection, users.c.is_admin, users.c.is_active, _NOT_SYSTEM, users.c.user_id != user_id)


async def _exists(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> bool:
    statement = select(users.c.user_id).where(*conditions).limit(1)
    return (await connection.execute(statement)).first() is not None


async def list_all(connection: AsyncConnection) -> list[UserDTO]:
    """Return all accounts, the newest first."""
    query = select(*_COLUMNS).where(_NOT_SYSTEM).order_by(users.c.created_at.desc(), users.c.user_id)
    return [_user(row) for row in (await connection.execute(query)).mappings()]


async def get(connection: AsyncConnection, user_id: str) -> UserDTO:
    """Return an account. Raise UserNotFound."""
    row = (await connection.execute(select(*_COLUMNS).where(users.c.user_id == user_id))).mappings().first()
    if row is None:
        raise UserNotFound(user_id)
    return _user(row)


async def find(connection: AsyncConnection, email: str) -> UserCredentials | None:
    """Return the account with exactly this address (case-sensitive), None if there is none."""
    query = select(*_COLUMNS, users.c.password_hash).where(users.c.email == email)
    row = (await connection.execute(query)).mappings().first()
    return UserCredentials(_user(row), row["password_hash"]) if row else None


async def get_hash(connection: AsyncConnection, user_id: str) -> str | None:
    """Return the password hash of an account; None when it is deleted."""
    query = select(users.c.password_hash).where(users.c.user_id == user_id)
    return (await connection.execute(query)).scalar()


async def add(
    connection: AsyncConnection, *, email: str, display_name: str | None, password_hash: str, is_admin: bool
) -> UserDTO:
    """Create an account. Raise EmailTaken."""
    user_id, at = str(uuid4()), now()
    values = {"user_id": user_id, "email": email, "display_name": display_name, "password_hash": password_hash}
    try:
        await connection.execute(insert(users).values(**values, is_admin=is_admin, created_at=at, updated_at=at))
    except IntegrityError as error:
        raise EmailTaken(email) from error
    return await get(connection, user_id)


async def change(connection: AsyncConnection, user_id: str, **values: Any) -> UserDTO:
    """Set columns of an account. Raise UserNotFound."""
    await connection.execute(update(users).where(users.c.user_id == user_id).values(**values, updated_at=now()))
    return await get(connection, user_id)


async def replace_hash(connection: AsyncConnection, user_id: str, before: str, after: str, *, revoke: bool) -> bool:
    """Replace a hash if it is still `before`; with `revoke` earlier tokens become invalid.

    Return whether it was replaced.
    """
    statement = update(users).where(users.c.user_id == user_id, users.c.password_hash == before)
    values: dict[str, Any] = {"password_hash": after}
    if revoke:
        values |= {"token_epoch": users.c.token_epoch + 1, "updated_at": now()}
    return (await connection.execute(statement.values(**values))).rowcount > 0


async def remove(connection: AsyncConnection, user_id: str) -> None:
    """Delete an account; its records are kept."""
    await connection.execute(delete(users).where(users.c.user_id == user_id))


async def secret(connection: AsyncConnection) -> str:
    """Return the secret that signs tokens, created on the first call."""
    await _NEW_SECRET.rows(connection, secret=new_secret())
    query = select(app_state.c.value).where(app_state.c.key == SECRET)
    return str((await connection.execute(query)).scalar_one())


def next_token_epoch() -> ColumnElement[int]:
    """Return the value of `token_epoch` that revokes all tokens of an account."""
    return users.c.token_epoch + 1
