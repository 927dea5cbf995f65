"""SQL for installations that haven't ended; the rows are what a restart goes on with. Tokens are not in them."""

from dataclasses import asdict, dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.times import now
from invokeclone.tables import model_installs


@dataclass(frozen=True)
class InstallEntry:
    """One installation: its folder, the key of the model to be, and JSON of source, stated fields and plan."""

    folder: str
    key: str
    source: str
    stated: str
    plan: str | None = None
    paused: bool = False
    error: str | None = None


async def save(connection: AsyncConnection, entry: InstallEntry) -> None:
    """Write the row of an installation, whether there is one or not."""
    row = asdict(entry)
    statement = insert(model_installs).values(created_at=now(), **row)
    await connection.execute(statement.on_conflict_do_update(index_elements=["folder"], set_=row))


async def remove(connection: AsyncConnection, folder: str) -> None:
    """Forget an installation."""
    await connection.execute(delete(model_installs).where(model_installs.c.folder == folder))


async def entries(connection: AsyncConnection) -> list[InstallEntry]:
    """Return every installation that hasn't ended, oldest first."""
    columns = [model_installs.c[name] for name in InstallEntry.__dataclass_fields__]
    result = await connection.execute(select(*columns).order_by(model_installs.c.created_at, model_installs.c.folder))
    return [InstallEntry(**row._mapping) for row in result]  # noqa: SLF001  (SQLAlchemy's public name for it)
