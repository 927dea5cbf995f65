"""Items that are made are counted by who makes them (queue/bulk_counts.py), as those that are deleted."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Leave out a trigger that costs a quarter of a row."""
    op.execute("DROP TRIGGER session_queue_counted")


def downgrade() -> None:
    """Refuse, as the migrations before do."""
    raise NotImplementedError("sessions that refer to a graph cannot be written out by this migration")
