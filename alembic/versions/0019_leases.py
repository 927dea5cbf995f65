"""A claimed item has a worker, a lease and a fence number."""

import sqlalchemy as sa

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns, and an index of the leases of running items."""
    op.add_column("session_queue", sa.Column("worker_id", TEXT, nullable=True))
    op.add_column("session_queue", sa.Column("fence", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("session_queue", sa.Column("lease_expires_at", TEXT, nullable=True))
    op.add_column("session_queue", sa.Column("interruptions", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.create_index(
        "ix_session_queue_leases",
        "session_queue",
        ["lease_expires_at"],
        sqlite_where=sa.text("lease_expires_at IS NOT NULL"),
        postgresql_where=sa.text("lease_expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_session_queue_leases", "session_queue")
    for name in ("interruptions", "lease_expires_at", "fence", "worker_id"):
        op.drop_column("session_queue", name)
