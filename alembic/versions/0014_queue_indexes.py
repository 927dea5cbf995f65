"""Fewer indexes of the queue, those of a status only of the items in it; deletions are counted by who deletes (queue/bulk_counts.py)."""

import sqlalchemy as sa

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Exchange the indexes; without triggers on deletions SQLite empties the table at once."""
    op.execute("DROP TRIGGER session_queue_uncounted")
    op.execute("DROP TRIGGER session_graphs_unused")
    for name in ("order", "queue", "listing"):
        op.drop_index(f"ix_session_queue_{name}", "session_queue")
    op.create_index(
        "ix_session_queue_order",
        "session_queue",
        ["status", sa.literal_column("priority DESC"), "item_id", "queue_id", "device"],
        sqlite_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_session_queue_busy",
        "session_queue",
        ["status", "queue_id"],
        sqlite_where=sa.text("status = 'in_progress' OR status = 'waiting'"),
    )


def downgrade() -> None:
    """Refuse, as the migration before does."""
    raise NotImplementedError("sessions that refer to a graph cannot be written out by this migration")
