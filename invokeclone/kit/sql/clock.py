"""The database's clock in SQL, as text in the format of `kit/times.py`.

Leases are set and compared by the database's clock only, so that clock differences between machines have no effect.
"""

from typing import Any

from sqlalchemy import ColumnElement, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_POSTGRESQL_FORMAT = "'YYYY-MM-DD HH24:MI:SS.MS'"
_POSTGRESQL_NOW = "(clock_timestamp() AT TIME ZONE 'utc')"


class _DatabaseTime(FunctionElement[str]):
    """The current time, plus the seconds in its argument if it has one."""

    type = Text()
    inherit_cache = True


@compiles(_DatabaseTime, "sqlite")
def _sqlite(element: Any, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    modifier = f", {seconds} || ' seconds'" if seconds else ""
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now'{modifier})"


@compiles(_DatabaseTime, "postgresql")
def _postgresql(element: Any, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    moment = f"{_POSTGRESQL_NOW} + make_interval(secs => {seconds})" if seconds else _POSTGRESQL_NOW
    return f"to_char({moment}, {_POSTGRESQL_FORMAT})"


def database_now() -> ColumnElement[str]:
    """Return the current time of the database."""
    return _DatabaseTime()


def database_now_plus(seconds: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the time of the database in `seconds`, usually a parameter."""
    return _DatabaseTime(seconds)
