"""An index of each webhook's unfinished deliveries, instead of one of all of them."""

import sqlalchemy as sa

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

PENDING = sa.text("due_at IS NOT NULL")


def upgrade() -> None:
    """Replace the index."""
    op.drop_index("ix_webhook_deliveries_due", "webhook_deliveries")
    _create_index("pending", ["webhook_id", "due_at"])


def downgrade() -> None:
    """Create the former index."""
    op.drop_index("ix_webhook_deliveries_pending", "webhook_deliveries")
    _create_index("due", ["due_at"])


def _create_index(name: str, columns: list[str]) -> None:
    table = "webhook_deliveries"
    op.create_index(f"ix_{table}_{name}", table, columns, sqlite_where=PENDING, postgresql_where=PENDING)
