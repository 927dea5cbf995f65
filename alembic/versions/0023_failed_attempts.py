"""Failed attempts of webhooks are counted: their times alone say little when the clock is changed or the server is off."""

import sqlalchemy as sa

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the counts; until now each attempt counted as a failed one."""
    _add_count("webhooks", "failing_periods")
    op.add_column("webhooks", sa.Column("failing_period_at", TEXT, nullable=True))
    _add_count("webhook_deliveries", "failed_attempts")
    op.execute("UPDATE webhook_deliveries SET failed_attempts = attempts WHERE due_at IS NOT NULL AND attempts > 0")


def downgrade() -> None:
    """Drop them."""
    op.drop_column("webhook_deliveries", "failed_attempts")
    op.drop_column("webhooks", "failing_period_at")
    op.drop_column("webhooks", "failing_periods")


def _add_count(table: str, name: str) -> None:
    op.add_column(table, sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0")))
