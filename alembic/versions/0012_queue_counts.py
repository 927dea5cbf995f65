"""How many items are in each status, kept by triggers; indexes that a change of status leaves alone."""

import sqlalchemy as sa

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SCOPES = (("queue", "''"), ("batch", "{row}.batch_id"), ("destination", "ifnull({row}.destination, '')"))
KEY = "queue_id, scope, name, user_id, status"


def _keys(row: str, number: int) -> str:
    """Return the values for each scope that an item counts in."""
    return ", ".join(
        f"({row}.queue_id, '{scope}', {name.format(row=row)}, {row}.user_id, {row}.status, {number})"
        for scope, name in SCOPES
    )


def _count(*values: str) -> str:
    return (
        f"INSERT INTO queue_counts ({KEY}, number) VALUES {', '.join(values)} "
        f"ON CONFLICT ({KEY}) DO UPDATE SET number = number + excluded.number"
    )


APART = "WHEN NOT EXISTS (SELECT 1 FROM app_state WHERE key = 'queue_counted_apart')"
"""Unless many items are changed at once, which are counted together (queue/bulk_counts.py)."""

TRIGGERS = (
    f"CREATE TRIGGER session_queue_counted AFTER INSERT ON session_queue {APART} BEGIN {_count(_keys('new', 1))}; END",
    f"CREATE TRIGGER session_queue_uncounted AFTER DELETE ON session_queue {APART} BEGIN {_count(_keys('old', -1))}; END",
    "CREATE TRIGGER session_queue_recounted AFTER UPDATE OF queue_id, batch_id, destination, user_id, status ON session_queue "
    f"{APART} BEGIN {_count(_keys('old', -1), _keys('new', 1))}; END",
)


def upgrade() -> None:
    """Count what is there."""
    op.create_table(
        "queue_counts",
        sa.Column("queue_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "scope", "name", "user_id", "status", name=op.f("pk_queue_counts")),
        sqlite_with_rowid=False,
    )
    for scope, name in SCOPES:
        op.execute(
            f"INSERT INTO queue_counts ({KEY}, number) SELECT queue_id, '{scope}', {name.format(row='session_queue')}, user_id, "
            "status, count(*) FROM session_queue GROUP BY 1, 2, 3, 4, 5"
        )
    for trigger in TRIGGERS:
        op.execute(trigger)
    op.drop_index("ix_session_queue_batch", "session_queue")
    op.create_index("ix_session_queue_batch", "session_queue", ["batch_id", "queue_id"])
    op.drop_index("ix_session_queue_destination", "session_queue")
    op.create_index("ix_session_queue_destination", "session_queue", ["queue_id", "destination"])


def downgrade() -> None:
    """Count at each request again."""
    for name in ("counted", "uncounted", "recounted"):
        op.execute(f"DROP TRIGGER session_queue_{name}")
    op.drop_table("queue_counts")
    op.drop_index("ix_session_queue_batch", "session_queue")
    op.create_index("ix_session_queue_batch", "session_queue", ["batch_id", "queue_id", "status", "user_id"])
    op.drop_index("ix_session_queue_destination", "session_queue")
    op.create_index("ix_session_queue_destination", "session_queue", ["queue_id", "destination", "status"])
