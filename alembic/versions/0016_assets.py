"""An index of the images that are assets: masks, control images, uploads and others; the runs that the text index knows."""

import sqlalchemy as sa

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index; general images are not in it. The table of runs stores nothing."""
    newest = [sa.literal_column(f"{name} DESC") for name in ("starred", "created_at", "image_name")]
    op.create_index(
        "ix_images_assets",
        "images",
        ["is_intermediate", *newest, "image_category", "board_id"],
        sqlite_where=sa.text("image_category != 'general'"),
    )
    op.execute("CREATE VIRTUAL TABLE images_text_runs USING fts5vocab (images_text, row)")


def downgrade() -> None:
    """Drop both."""
    op.execute("DROP TABLE images_text_runs")
    op.drop_index("ix_images_assets", "images")
