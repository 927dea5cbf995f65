"""The address of a PostgreSQL database, and what to do about one that cannot be used."""

from pathlib import Path

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from invokeclone.kit.sql.database_file import DatabaseUnusable

FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Options of an address that name files."""
UNUSABLE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError)
"""Errors of an attempt to connect that `explain` describes."""


def parse_address(url: str) -> URL:
    """Return the parts of `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`. Raises DatabaseUnusable."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise DatabaseUnusable(
            f"database_url is not an address: write {FORM}, with special characters of the password as %XX"
        ) from error
    if url.partition("?")[0].count("@") > 1:  # a part of the password would be taken for the host
        raise DatabaseUnusable("database_url has several @: write those of the password as %40")
    if parts.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseUnusable(
            f"database_url has {parts.drivername}: only {FORM} is supported; leave it out for SQLite"
        )
    if not parts.database:
        raise DatabaseUnusable(f"database_url names no database: write {FORM}")
    options = dict(parts.query)
    if "ssl" in options:  # SQLAlchemy's name of the option, which the driver would send to the server
        options.setdefault("sslmode", options.pop("ssl"))
    for name in FILES:
        file = options.get(name)
        if isinstance(file, str) and not Path(file).is_file():
            raise DatabaseUnusable(f"database_url has {name}={file}: there is no such file")
    return parts.set(drivername="postgresql+asyncpg", query=options)


def display(url: URL) -> str:
    """Return the address without its password."""
    return url.render_as_string(hide_password=True).replace("postgresql+asyncpg", "postgresql")


def explain(url: URL, error: BaseException) -> DatabaseUnusable:
    """Return one line about an error of an attempt to connect, with what to do."""
    address, reason = display(url), " ".join(str(error).split()) or type(error).__name__
    match error:
        case asyncpg.InvalidPasswordError():
            text = f"{address} rejects the user or password of database_url: {reason}"
        case asyncpg.InvalidAuthorizationSpecificationError():
            text = f"{address} rejects the connection ({reason}): correct database_url, or the server's pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            text = f"the server of {address} has no such database: create it (createdb), or correct database_url ({reason})"
        case asyncpg.UndefinedObjectError() | asyncpg.CantChangeRuntimeParamError():
            text = f"{address} has an option that PostgreSQL does not know ({reason}): correct database_url"
        case asyncpg.InsufficientPrivilegeError():
            return too_few_rights(url, reason)
        case asyncpg.DuplicatePreparedStatementError() | asyncpg.InvalidSQLStatementNameError():
            text = pools_transactions(url)
        case _:
            text = f"{address} cannot be reached ({reason}): start PostgreSQL, or correct database_url"
    return DatabaseUnusable(text)


def too_few_rights(url: URL, reason: str) -> DatabaseUnusable:
    """Return the error for a user who may not read or change the tables."""
    return DatabaseUnusable(
        f"the user of {display(url)} has too few rights ({reason}): make it the owner of the database and its tables, or "
        "grant it all rights on the tables and sequences"
    )


def pools_transactions(url: URL) -> str:
    """Return the line about a pool that gives a session's statements to several connections."""
    return (
        f"{display(url)} is a pool of transactions: let it pool sessions (PgBouncer: pool_mode = session), or connect to "
        "PostgreSQL itself"
    )
