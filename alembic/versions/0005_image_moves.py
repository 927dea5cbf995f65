"""Images: a number per row, how many there are of each sort, a text index; lists of one user's own; the journal of moves."""

import sqlalchemy as sa

from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

COLUMNS = (
    "image_name, image_origin, image_category, width, height, session_id, node_id, is_intermediate, starred, "
    "has_workflow, image_subfolder, board_id, user_id, created_at, updated_at, metadata"
)

COUNTED = ("user_id", "board_id", "is_intermediate", "image_category", "image_origin", "starred")
"""What images are counted by; images on no board are under the board ''."""


def _sort_of(row: str) -> str:
    return ", ".join(f"ifnull({row}.board_id, '')" if name == "board_id" else f"{row}.{name}" for name in COUNTED)


def _one_more(row: str) -> str:
    return (
        f"INSERT INTO image_counts ({', '.join(COUNTED)}, number) VALUES ({_sort_of(row)}, 1) "
        f"ON CONFLICT ({', '.join(COUNTED)}) DO UPDATE SET number = number + 1"
    )


def _one_less(row: str) -> str:
    return f"UPDATE image_counts SET number = number - 1 WHERE ({', '.join(COUNTED)}) = ({_sort_of(row)})"


TEXT = "ifnull({row}.metadata, '') || ' ' || {row}.created_at"
"""What a search looks through. An index of it grows by many rows at a time: one by one costs fifteen times as much."""

AT_A_TIME = 128
INDEXED = "(SELECT CAST(value AS INTEGER) FROM app_state WHERE key = 'images_text_until')"
"""The number of the last image whose text is in the index; those after it are looked through one by one."""

TRIGGERS = f"""
CREATE TRIGGER images_counted AFTER INSERT ON images BEGIN {_one_more("new")}; END;
CREATE TRIGGER images_uncounted AFTER DELETE ON images BEGIN {_one_less("old")}; END;
CREATE TRIGGER images_recounted AFTER UPDATE OF {", ".join(COUNTED)} ON images
WHEN ({_sort_of("old")}) IS NOT ({_sort_of("new")})
BEGIN {_one_less("old")}; {_one_more("new")}; END;
CREATE TRIGGER images_text_added AFTER INSERT ON images WHEN new.image_id >= {INDEXED} + {AT_A_TIME} BEGIN
INSERT INTO images_text (rowid, text)
SELECT image_id, {TEXT.format(row="images")} FROM images WHERE image_id > {INDEXED};
UPDATE app_state SET value = CAST(new.image_id AS TEXT) WHERE key = 'images_text_until';
END;
CREATE TRIGGER images_text_removed AFTER DELETE ON images WHEN old.image_id <= {INDEXED} BEGIN
INSERT INTO images_text (images_text, rowid, text) VALUES ('delete', old.image_id, {TEXT.format(row="old")});
END;
CREATE TRIGGER images_text_changed AFTER UPDATE OF metadata, created_at ON images WHEN old.image_id <= {INDEXED} BEGIN
INSERT INTO images_text (images_text, rowid, text) VALUES ('delete', old.image_id, {TEXT.format(row="old")});
INSERT INTO images_text (rowid, text) VALUES (new.image_id, {TEXT.format(row="new")});
END;
"""


def upgrade() -> None:
    """Make the table of images anew with what belongs to it, and the journal."""
    op.execute("ALTER TABLE images RENAME TO images_before")
    for index in ("board", "gallery", "starred"):
        op.drop_index(f"ix_images_{index}")
    op.create_table('images',
    sa.Column('image_id', sa.Integer(), nullable=False),
    sa.Column('image_name', sa.Text(), nullable=False),
    sa.Column('image_origin', sa.Text(), nullable=False),
    sa.Column('image_category', sa.Text(), nullable=False),
    sa.Column('width', sa.Integer(), nullable=False),
    sa.Column('height', sa.Integer(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=True),
    sa.Column('node_id', sa.Text(), nullable=True),
    sa.Column('is_intermediate', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('starred', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('has_workflow', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('image_subfolder', sa.Text(), server_default='', nullable=False),
    sa.Column('board_id', sa.Text(), nullable=True),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.Column('metadata', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['board_id'], ['boards.board_id'], name=op.f('fk_images_board_id'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('image_id', name=op.f('pk_images')),
    sa.UniqueConstraint('image_name', name=op.f('uq_images_image_name')),
    sqlite_autoincrement=True
    )
    op.execute(f"INSERT INTO images ({COLUMNS}) SELECT {COLUMNS} FROM images_before ORDER BY created_at, image_name")
    op.drop_table("images_before")
    newest = ['starred DESC', 'created_at DESC', 'image_name DESC']
    ordered = [sa.literal_column(column) for column in newest]
    shown = ['is_intermediate', *ordered, 'image_category']
    owned = {"sqlite_where": sa.text("user_id != 'system'")}
    op.create_index('ix_images_starred', 'images', ordered)
    op.create_index('ix_images_gallery', 'images', shown)
    op.create_index('ix_images_board', 'images', ['board_id', *shown])
    op.create_index('ix_images_owned', 'images', ['user_id', *shown], **owned)
    op.create_index('ix_images_owned_board', 'images', ['user_id', 'board_id', *shown], **owned)

    op.create_table('image_counts',
    sa.Column('board_id', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text(), nullable=False),
    sa.Column('is_intermediate', sa.Boolean(), nullable=False),
    sa.Column('image_category', sa.Text(), nullable=False),
    sa.Column('image_origin', sa.Text(), nullable=False),
    sa.Column('starred', sa.Boolean(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('board_id', 'user_id', 'is_intermediate', 'image_category', 'image_origin', 'starred', name=op.f('pk_image_counts')),
    sqlite_with_rowid=False
    )
    op.execute(
        f"INSERT INTO image_counts ({', '.join(COUNTED)}, number) SELECT {_sort_of('images')}, count(*) FROM images "
        "GROUP BY 1, 2, 3, 4, 5, 6"
    )
    op.execute("CREATE VIRTUAL TABLE images_text USING fts5 (text, content='', tokenize='trigram', detail='none', columnsize=0)")
    op.execute(f"INSERT INTO images_text (rowid, text) SELECT image_id, {TEXT.format(row='images')} FROM images")
    op.execute("INSERT INTO app_state (key, value) SELECT 'images_text_until', CAST(ifnull(max(image_id), 0) AS TEXT) FROM images")
    for trigger in TRIGGERS.split("END;")[:-1]:
        op.execute(f"{trigger}END")

    op.create_table('image_move_jobs',
    sa.Column('job_id', sa.Integer(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('error_message', sa.Text(), nullable=True),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('job_id', name=op.f('pk_image_move_jobs')),
    sqlite_autoincrement=True
    )
    op.create_table('image_move_items',
    sa.Column('image_name', sa.Text(), nullable=False),
    sa.Column('from_subfolder', sa.Text(), nullable=False),
    sa.Column('to_subfolder', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('image_name', name=op.f('pk_image_move_items'))
    )
