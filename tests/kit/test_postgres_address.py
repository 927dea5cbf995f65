"""Addresses of PostgreSQL databases, and the one line about each that cannot be used."""

import os
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from invokeclone.kit.files.storage_errors import startup_line, to_storage_error
from invokeclone.kit.sql import migrations, postgres_address, postgres_errors
from invokeclone.kit.sql.database_file import DatabaseUnusable
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from tests.postgres import ExistingServer, PostgresServer


def test_the_option_of_encryption_has_two_names(tmp_path: Path) -> None:
    assert postgres_address.parse_address("postgresql://u@h/d?ssl=require").query == {"sslmode": "require"}
    authority = tmp_path / "ca.crt"
    authority.touch()
    query = {"sslmode": "verify-full", "sslrootcert": str(authority)}
    parts = postgres_address.parse_address(f"postgresql://u@h/d?sslmode=verify-full&sslrootcert={authority}")
    assert parts.query == query


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "is not an address: write postgresql://USER"),
        ("postgresql://u:hid@den@h/d", "several @: write those of the password as %40"),
        ("postgresql://u:hidden@h", "names no database"),
        ("postgresql://u:hidden@h:x/d", "is not an address"),
        ("mysql://u:hidden@h/d", "has mysql: only postgresql://"),
        ("postgresql://u:hidden@h/d?sslrootcert=/none/ca.crt", "sslrootcert=/none/ca.crt: there is no such file"),
    ],
)
def test_an_unusable_address_is_explained_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(DatabaseUnusable, match=reason) as caught:
        postgres_address.parse_address(url)
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.InvalidPasswordError("wrong"), "rejects the user or password of database_url: wrong"),
        (asyncpg.InvalidAuthorizationSpecificationError("no entry"), r"rejects the connection \(no entry\): correct .*pg_hba"),
        (asyncpg.InvalidCatalogNameError("x"), "has no such database: create it"),
        (asyncpg.CantChangeRuntimeParamError("parameter x"), r"option that PostgreSQL does not know \(parameter x\)"),
        (asyncpg.InsufficientPrivilegeError("table x"), r"has too few rights \(table x\): make it the owner"),
        (asyncpg.DuplicatePreparedStatementError("x"), "is a pool of transactions: let it pool sessions"),
        (OSError("two\nlines"), r"cannot be reached \(two lines\): start PostgreSQL"),
        (TimeoutError(), r"cannot be reached \(TimeoutError\)"),
    ],
)  # fmt: skip
def test_errors_of_connecting_are_one_line(error: Exception, reason: str) -> None:
    line = str(postgres_address.explain(make_url("postgresql+asyncpg://u:hidden@h/d"), error))
    assert "hidden" not in line
    assert "\n" not in line
    with pytest.raises(DatabaseUnusable, match=reason):
        raise postgres_address.explain(make_url("postgresql+asyncpg://u:hidden@h/d"), error)


def test_errors_of_the_database_at_the_start_are_not_taken_for_those_of_files() -> None:
    refused = postgres_errors.translate("INSERT …", asyncpg.InsufficientPrivilegeError("no right\nto insert"))
    assert startup_line(refused) == (
        "cannot use the database: no right to insert; correct database_url, or the rights of its user"
    )
    lost = postgres_errors.translate("connect", ConnectionRefusedError(111, "Connection refused"))
    assert "cannot use the database: [Errno 111] Connection refused" in str(startup_line(lost))
    error = to_storage_error(refused)
    assert error is not None
    assert error.status == 507
    assert "the database does not allow" in str(error)


async def unusable(address: str) -> str:
    """Return why a database is refused at a start, as `serve` checks it."""
    database = PostgresDatabase(address)
    with pytest.raises(DatabaseUnusable) as caught:
        await database.check(migrations.revisions())
        await database.migrate()
    await database.close()
    return str(caught.value)


async def test_sessions_have_their_settings(postgres: PostgresServer) -> None:
    """They are set after connecting, as PgBouncer refuses most of them before."""
    database = PostgresDatabase(postgres.clean_database())
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "jit", "TimeZone", "application_name")
    values = [(await database.fetch(f"SHOW {name}", ()))[0][0] for name in names]
    assert values == ["30s", "10s", "off", "UTC", "invokeclone"]
    await database.close()


async def test_a_read_only_database_is_refused(postgres: PostgresServer) -> None:
    address = postgres.new_database()
    name = make_url(address).database
    postgres.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "is read-only: connect to the primary server" in await unusable(address)


async def test_an_option_that_the_server_does_not_know_is_named(postgres: PostgresServer) -> None:
    address = postgres.clean_database()
    line = await unusable(f"{address}{'&' if '?' in address else '?'}connect_timeout=5")
    assert "connect_timeout" in line
    assert "has an option that PostgreSQL does not know" in line


@pytest.fixture
def guest(postgres: PostgresServer) -> str:
    """Create a user who is not the owner of anything; return its name."""
    if isinstance(postgres, ExistingServer):
        pytest.skip("the user of an existing server may not create others")
    name = f"guest_{os.getpid()}"
    postgres.run(f"CREATE ROLE {name} LOGIN")
    return name


async def test_a_user_with_too_few_rights_is_refused(postgres: PostgresServer, guest: str) -> None:
    address = postgres.new_database()
    database = str(make_url(address).database)
    as_guest = address.replace("postgres@", f"{guest}@", 1)
    assert "may not change alembic_version" in await unusable(as_guest)
    postgres.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {guest}", database=database)
    assert "_seq): make it the owner" in await unusable(as_guest)
    postgres.run(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {guest}", database=database)
    opened = PostgresDatabase(as_guest)
    await opened.migrate()
    await opened.close()
    postgres.run(f"REVOKE INSERT ON images FROM {guest}", database=database)
    assert "may not change images" in await unusable(as_guest)


class OneSession(PostgresDatabase):
    """A database behind a pool of transactions: two connections share a session of the server."""

    _session: Any = None

    async def _connect(self, command_timeout_s: float | None = None) -> Any:
        if self._session is None or self._session.is_closed():
            self._session = await super()._connect(command_timeout_s)
        return self._session


async def test_a_pool_of_transactions_is_refused(postgres: PostgresServer) -> None:
    database = OneSession(postgres.clean_database())
    with pytest.raises(DatabaseUnusable, match="is a pool of transactions: let it pool sessions"):
        await database.migrate()
    await database.close()
