"""Videos."""

import sqlalchemy as sa

from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of videos."""
    op.create_table('videos',
    sa.Column('video_name', sa.Text(), nullable=False),
    sa.Column('video_origin', sa.Text(), nullable=False),
    sa.Column('video_category', sa.Text(), nullable=False),
    sa.Column('width', sa.Integer(), nullable=False),
    sa.Column('height', sa.Integer(), nullable=False),
    sa.Column('duration', sa.Float(), nullable=False),
    sa.Column('fps', sa.Float(), nullable=True),
    sa.Column('session_id', sa.Text(), nullable=True),
    sa.Column('node_id', sa.Text(), nullable=True),
    sa.Column('metadata', sa.Text(), nullable=True),
    sa.Column('is_intermediate', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('starred', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('has_workflow', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('video_subfolder', sa.Text(), server_default='', nullable=False),
    sa.Column('board_id', sa.Text(), nullable=True),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.Column('gallery_name', sa.Text(), sa.Computed("'~' || video_name", persisted=False), nullable=True),
    sa.ForeignKeyConstraint(['board_id'], ['boards.board_id'], name=op.f('fk_videos_board_id'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('video_name', name=op.f('pk_videos'))
    )
    ordered = ['is_intermediate', sa.literal_column('starred DESC'), sa.literal_column('created_at DESC'), sa.literal_column('gallery_name DESC'), 'video_category']
    op.create_index('ix_videos_gallery', 'videos', ordered)
    op.create_index('ix_videos_board', 'videos', ['board_id', *ordered])
    owned = {"sqlite_where": sa.text("user_id != 'system'")}
    op.create_index('ix_videos_owned', 'videos', ['user_id', *ordered], **owned)
    op.create_index('ix_videos_owned_board', 'videos', ['user_id', 'board_id', *ordered], **owned)


def downgrade() -> None:
    """Drop the table; its files stay."""
    op.drop_table('videos')
