"""What a transaction that failed has stored: nothing or, if only the answer to its COMMIT was lost, everything."""

from collections.abc import Awaitable, Callable

from anyio import CancelScope
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit import log
from invokeclone.kit.sql.database import Database

_log = log.get("kit.database")


async def is_stored(database: Database, read: Callable[[AsyncConnection], Awaitable[bool]]) -> bool | None:
    """Return what `read` returns after a transaction that has failed or was canceled; None if that cannot be read.

    Asked before files of a new record are removed. The exclusive transaction waits for the end of the failed one.
    """
    with CancelScope(shield=True):
        try:
            async with database.write() as connection:
                return await read(connection)
        except (OSError, SQLAlchemyError) as error:
            _log.warning("whether a record was stored cannot be read, so its files stay: %s", error)
    return None
