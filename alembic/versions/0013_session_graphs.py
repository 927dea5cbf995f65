"""The graph of a batch is stored once (items that are there already keep their whole sessions); an index of images by time."""

import sqlalchemy as sa

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TRIGGER = """
CREATE TRIGGER session_graphs_unused AFTER DELETE ON session_queue
WHEN old.graph_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM app_state WHERE key = 'queue_counted_apart') BEGIN
DELETE FROM session_graphs WHERE graph_id = old.graph_id AND NOT EXISTS (
    SELECT 1 FROM session_queue WHERE batch_id = old.batch_id AND queue_id = old.queue_id AND graph_id = old.graph_id
);
END
"""
"""Items of one graph are of one batch, repeats too."""


def upgrade() -> None:
    """Add the table, what items hold of it, and what removes a graph with its last item."""
    op.create_table(
        "session_graphs",
        sa.Column("graph_id", sa.Integer(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("graph_id", name=op.f("pk_session_graphs")),
        sqlite_autoincrement=True,
    )
    op.add_column("session_queue", sa.Column("graph_id", sa.Integer(), nullable=True))
    op.add_column("session_queue", sa.Column("graph_values", sa.Text(), nullable=True))
    op.execute(TRIGGER)
    newest = [sa.literal_column("created_at DESC"), sa.literal_column("image_name DESC")]
    op.create_index("ix_images_newest", "images", ["is_intermediate", *newest, "image_category"])


def downgrade() -> None:
    """Refuse: whole sessions would have to be written from Python."""
    raise NotImplementedError("sessions that refer to a graph cannot be written out by this migration")
