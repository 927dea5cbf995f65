"""SQL for installations from the web that haven't ended; the rows are what a restart goes on with. Tokens are not in them."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.times import now
from invokeclone.tables import model_installs


@dataclass(frozen=True)
class Entry:
    """One installation: its folder, the key of the model to be, and JSON of source, stated fields and plan."""

    folder: str
    key: str
    source: str
    stated: str
    plan: str | None = None
    paused: bool = False
    error: str | None = None


async def add(connection: AsyncConnection, entry: Entry) -> None:
    """Note that an installation began."""
    row = {"folder": entry.folder, "key": entry.key, "source": entry.source, "stated": entry.stated}
    await connection.execute(insert(model_installs).values(created_at=now(), **row))


async def change(connection: AsyncConnection, folder: str, **values: str | bool | None) -> None:
    """Change columns of one installation; without effect when it has ended."""
    await connection.execute(update(model_installs).where(model_installs.c.folder == folder).values(**values))


async def remove(connection: AsyncConnection, folder: str) -> None:
    """Forget an installation."""
    await connection.execute(delete(model_installs).where(model_installs.c.folder == folder))


async def entries(connection: AsyncConnection) -> list[Entry]:
    """Return every installation that hasn't ended, oldest first."""
    columns = [model_installs.c[name] for name in Entry.__dataclass_fields__]
    found = await connection.execute(select(*columns).order_by(model_installs.c.created_at, model_installs.c.folder))
    return [Entry(**row._mapping) for row in found]  # noqa: SLF001  (SQLAlchemy's public name for it)
