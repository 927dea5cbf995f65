"""SQL for unfinished installations, which a restart resumes. The rows do not contain access tokens."""

from dataclasses import asdict, dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.times import now
from invokeclone.tables import model_installs


@dataclass(frozen=True)
class InstallEntry:
    """An unfinished installation: its folder, its model's key, and JSON of source, overrides (`stated`) and plan."""

    folder: str
    key: str
    source: str
    stated: str
    plan: str | None = None
    paused: bool = False
    error: str | None = None


async def save(connection: AsyncConnection, entry: InstallEntry) -> None:
    """Insert or update the row of an installation."""
    row = asdict(entry)
    statement = insert(model_installs).values(created_at=now(), **row)
    await connection.execute(statement.on_conflict_do_update(index_elements=["folder"], set_=row))


async def remove(connection: AsyncConnection, folder: str) -> None:
    """Delete the row of an installation."""
    await connection.execute(delete(model_installs).where(model_installs.c.folder == folder))


async def entries(connection: AsyncConnection) -> list[InstallEntry]:
    """Return the unfinished installations, oldest first."""
    columns = [model_installs.c[name] for name in InstallEntry.__dataclass_fields__]
    result = await connection.execute(select(*columns).order_by(model_installs.c.created_at, model_installs.c.folder))
    return [InstallEntry(**row._mapping) for row in result]  # noqa: SLF001  (SQLAlchemy's documented name)
