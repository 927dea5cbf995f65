"""The history of PostgreSQL databases starts here, with the schema that the revisions before make in SQLite."""

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing in SQLite."""


def downgrade() -> None:
    """Change nothing in SQLite."""
