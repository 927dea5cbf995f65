"""Webhooks of a root of an earlier version."""

import sqlite3
from contextlib import closing
from pathlib import Path

from invokeclone.kit.sql import migrations


def test_pending_deliveries_keep_their_number_of_failed_attempts(tmp_path: Path) -> None:
    """Until revision 0023 every attempt counted as a failed one."""
    file = tmp_path / "invokeai.db"
    migrations.upgrade(file, "0021")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO webhooks (webhook_id, user_id, url, events, secret, created_at, failing_since)"
            " VALUES ('w', 'system', 'https://example.com/', '[]', 's', '2026', '2026')"
        )
        connection.executemany(
            "INSERT INTO webhook_deliveries (delivery_id, webhook_id, event, created_at, attempts, due_at, body)"
            " VALUES (?, 'w', 'batch_done', '2026', ?, ?, '{}')",
            [("new", 0, "2026"), ("failing", 5, "2026"), ("finished", 3, None)],
        )
    migrations.upgrade(file)
    with closing(sqlite3.connect(file)) as connection:
        attempts = dict(connection.execute("SELECT delivery_id, failed_attempts FROM webhook_deliveries"))
        periods = connection.execute(
            "SELECT failing_since, failing_periods, failing_period_at FROM webhooks"
        ).fetchall()
    assert attempts == {"new": 0, "failing": 5, "finished": 0}
    assert periods == [("2026", 0, None)]
