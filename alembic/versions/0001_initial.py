"""The first schema (replaced by the generated one before release)."""

from alembic import op
from invokeclone.kit.times import now
from invokeclone.tables import metadata, users

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table, and the user who owns everything in single-user mode."""
    metadata.create_all(op.get_bind())
    op.bulk_insert(users, [{"user_id": "system", "email": "system@system.invokeai", "display_name": "System",
                            "is_admin": True, "is_active": True, "created_at": now(), "updated_at": now()}])


def downgrade() -> None:
    """Drop everything."""
    metadata.drop_all(op.get_bind())
