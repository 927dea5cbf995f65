"""Accounts for tests of other packages: inserted into the database, with a token and without hashing a password."""

from dataclasses import dataclass

from invokeclone.kit.sql.database import Database
from invokeclone.users import store, tokens
from invokeclone.users.signin import SignIn


@dataclass(frozen=True)
class Account:
    user_id: str
    email: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


async def account(database: Database, name: str, *, is_admin: bool = False) -> Account:
    """Make the account of `name`@example.com and sign it in."""
    async with database.write() as connection:
        user = await store.add(
            connection, email=f"{name}@example.com", display_name=name.title(), password_hash="!", is_admin=is_admin
        )
        secret = await store.secret(connection)
    sign_in = SignIn(
        user_id=user.user_id,
        email=user.email,
        display_name=user.display_name,
        is_admin=is_admin,
        token_epoch=0,
        remember_me=False,
        expires=tokens.expiry(remember_me=False),
        secret=secret,
    )
    return Account(user.user_id, user.email, sign_in.token())
