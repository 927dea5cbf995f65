"""An index of each user's pending items."""

import sqlalchemy as sa

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index by which turns are found."""
    op.create_index(
        "ix_session_queue_pending",
        "session_queue",
        ["status", "user_id", sa.literal_column("priority DESC"), "item_id", "device"],
        sqlite_where=sa.text("status = 'pending'"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_session_queue_pending", "session_queue")
