"""An index of the images that are assets: masks, control images, uploads and others."""

import sqlalchemy as sa

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index; general images are not in it."""
    newest = [sa.literal_column(f"{name} DESC") for name in ("starred", "created_at", "image_name")]
    op.create_index(
        "ix_images_assets",
        "images",
        ["is_intermediate", *newest, "image_category", "board_id"],
        sqlite_where=sa.text("image_category != 'general'"),
    )


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_images_assets", "images")
