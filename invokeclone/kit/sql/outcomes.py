"""What a transaction that failed has stored: nothing or, if only the answer to its COMMIT was lost, everything."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio import CancelScope
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit import log
from invokeclone.kit.sql.database import Database

Stored = TypeVar("Stored")

_log = log.get("kit.database")


async def read_stored(database: Database, read: Callable[[AsyncConnection], Awaitable[Stored]]) -> Stored | None:
    """Return what `read` returns after a transaction that has failed or was canceled; None if that cannot be read.

    Read before the files of a record are removed, and before a change is reported whose COMMIT got no answer. An empty
    exclusive transaction waits for the end of the failed one, which the database may still be committing: without it, the
    read might not see that.
    """
    with CancelScope(shield=True):
        try:
            async with database.write():
                pass
            async with database.read() as connection:
                return await read(connection)
        except (OSError, SQLAlchemyError) as error:
            _log.warning("what a failed transaction has stored cannot be read: %s", error)
    return None
