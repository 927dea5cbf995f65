"""Workflows, style presets and system prompts."""

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Workflows, style presets and system prompts."""
