"""Local dates are the same in Python, SQLite and PostgreSQL, whatever the zone of the process."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import asyncpg
import pytest
from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

import invokeclone.kit.sql.functions  # noqa: F401  (registers local_date)
from invokeclone.kit.sql.local_zone import local_zone
from tests.postgres import PostgresServer

TIMES = ("2026-01-31 23:30:00.000", "2026-02-01 00:30:00.000", "2026-06-30 18:45:00.000", "2026-07-01 05:30:00.000")


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    local_zone.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    local_zone.cache_clear()


@pytest.mark.skipif(os.name == "nt", reason="the test sets the zone of the process")
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata", "XYZ-5:45", "XYZ+3"], indirect=True)
async def test_dates_are_those_of_the_process(postgres: PostgresServer, zone: None) -> None:
    expected = [datetime.fromisoformat(at).replace(tzinfo=UTC).astimezone().strftime("%Y/%m/%d") for at in TIMES]
    statement = select(func.local_date(bindparam("at")))
    of_sqlite = str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))
    with closing(sqlite3.connect(":memory:")) as connection:
        assert [connection.execute(of_sqlite, {"at": at}).fetchone()[0] for at in TIMES] == expected
    of_postgres = str(statement.compile(dialect=postgresql.dialect())).replace("%(at)s", "$1::text")
    server = await asyncpg.connect(postgres.address("postgres"))
    assert [await server.fetchval(of_postgres, at) for at in TIMES] == expected
    await server.close()
