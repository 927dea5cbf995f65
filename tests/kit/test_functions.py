"""SQL functions of both databases: the clock, as text in the format of our times."""

import sqlite3
from contextlib import closing

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from invokeclone.kit.sql.functions import database_now, database_now_plus
from invokeclone.kit.times import now


def test_sqlite_adds_seconds_and_writes_the_format_of_our_times() -> None:
    statement = select(database_now(), database_now_plus(bindparam("s")), database_now_plus(bindparam("t")))
    sql = str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))
    with closing(sqlite3.connect(":memory:")) as connection:
        ((at, later, earlier),) = connection.execute(sql, {"s": 30, "t": -86400 * 400})
    assert earlier < at < later
    assert len(at) == len(later) == len(earlier) == len(now())
    assert at[:13] <= later[:13]


def test_postgresql_uses_the_clock_and_not_the_start_of_the_transaction() -> None:
    sql = str(select(database_now_plus(bindparam("s"))).compile(dialect=postgresql.dialect()))
    assert sql == (
        "SELECT to_char((clock_timestamp() AT TIME ZONE 'utc') + make_interval(secs => %(s)s), "
        "'YYYY-MM-DD HH24:MI:SS.MS') AS anon_1"
    )
