"""Files of ComfyUI's clients: the names of uploaded images, and each user's data."""

import sqlalchemy as sa

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "comfyui_user_data",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "path", name=op.f("pk_comfyui_user_data")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_comfyui_user_data_user_id"), ondelete="CASCADE"
        ),
    )
    op.create_table(
        "comfyui_uploads",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("subfolder", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("image_name", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "folder", "subfolder", "name", name=op.f("pk_comfyui_uploads")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.user_id"], name=op.f("fk_comfyui_uploads_user_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image_name"],
            ["images.image_name"],
            name=op.f("fk_comfyui_uploads_image_name"),
            ondelete="CASCADE",
        ),
    )
    op.create_index(op.f("ix_comfyui_uploads_image_name"), "comfyui_uploads", ["image_name"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index(op.f("ix_comfyui_uploads_image_name"), "comfyui_uploads")
    op.drop_table("comfyui_uploads")
    op.drop_table("comfyui_user_data")
