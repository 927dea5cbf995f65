"""The first schema."""

import sqlalchemy as sa

from alembic import op

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table, and the user who owns everything in single-user mode."""
    op.create_table('app_state',
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('value', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_app_state'))
    )
    op.create_table('boards',
    sa.Column('board_id', sa.Text(), nullable=False),
    sa.Column('board_name', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('cover_image_name', sa.Text(), nullable=True),
    sa.Column('archived', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('board_visibility', sa.Text(), server_default='private', nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('board_id', name=op.f('pk_boards'))
    )
    op.create_index('ix_boards_created', 'boards', ['archived', 'created_at', 'board_id'])

    op.create_table('models',
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('hash', sa.Text(), nullable=False),
    sa.Column('base', sa.Text(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('format', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('path', sa.Text(), nullable=False),
    sa.Column('file_size', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('description', sa.Text(), nullable=True),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('config', sa.Text(), nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_models')),
    sa.UniqueConstraint('path', name=op.f('uq_models_path'))
    )
    op.create_index('ix_models_name', 'models', ['base', 'type', 'name'])

    op.create_table('session_queue',
    sa.Column('item_id', sa.Integer(), nullable=False),
    sa.Column('queue_id', sa.Text(), nullable=False),
    sa.Column('batch_id', sa.Text(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default='pending', nullable=False),
    sa.Column('status_sequence', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('priority', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('origin', sa.Text(), nullable=True),
    sa.Column('destination', sa.Text(), nullable=True),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('device', sa.Text(), nullable=True),
    sa.Column('field_values', sa.Text(), nullable=True),
    sa.Column('error_type', sa.Text(), nullable=True),
    sa.Column('error_message', sa.Text(), nullable=True),
    sa.Column('error_traceback', sa.Text(), nullable=True),
    sa.Column('retried_from_item_id', sa.Integer(), nullable=True),
    sa.Column('workflow_call_id', sa.Text(), nullable=True),
    sa.Column('parent_item_id', sa.Integer(), nullable=True),
    sa.Column('parent_session_id', sa.Text(), nullable=True),
    sa.Column('root_item_id', sa.Integer(), nullable=True),
    sa.Column('workflow_call_depth', sa.Integer(), nullable=True),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.Column('started_at', sa.Text(), nullable=True),
    sa.Column('completed_at', sa.Text(), nullable=True),
    sa.Column('workflow', sa.Text(), nullable=True),
    sa.Column('session', sa.Text(), nullable=False),
    sa.CheckConstraint("status IN ('pending', 'in_progress', 'waiting', 'completed', 'failed', 'canceled')", name=op.f('ck_session_queue_status')),
    sa.PrimaryKeyConstraint('item_id', name=op.f('pk_session_queue')),
    sqlite_autoincrement=True
    )
    op.create_index('ix_session_queue_batch', 'session_queue', ['batch_id', 'queue_id', 'status', 'user_id'])
    op.create_index('ix_session_queue_created', 'session_queue', ['queue_id', sa.literal_column('created_at DESC')])
    op.create_index('ix_session_queue_destination', 'session_queue', ['queue_id', 'destination', 'status'])
    op.create_index('ix_session_queue_listing', 'session_queue', ['queue_id', sa.literal_column('priority DESC'), 'item_id'])
    op.create_index('ix_session_queue_order', 'session_queue', ['status', sa.literal_column('priority DESC'), 'item_id'])
    op.create_index('ix_session_queue_queue', 'session_queue', ['queue_id', 'status', sa.literal_column('priority DESC'), 'created_at', 'user_id'])
    op.create_index('ix_session_queue_served', 'session_queue', ['user_id', 'started_at'], sqlite_where=sa.text('started_at IS NOT NULL'))

    op.create_table('users',
    sa.Column('user_id', sa.Text(), nullable=False),
    sa.Column('email', sa.Text(), nullable=False),
    sa.Column('display_name', sa.Text(), nullable=True),
    sa.Column('password_hash', sa.Text(), server_default='', nullable=False),
    sa.Column('is_admin', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('is_active', sa.Boolean(), server_default=sa.text('1'), nullable=False),
    sa.Column('token_epoch', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.Column('last_login_at', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('user_id', name=op.f('pk_users')),
    sa.UniqueConstraint('email', name=op.f('uq_users_email'))
    )
    op.create_table('images',
    sa.Column('image_name', sa.Text(), nullable=False),
    sa.Column('image_origin', sa.Text(), nullable=False),
    sa.Column('image_category', sa.Text(), nullable=False),
    sa.Column('width', sa.Integer(), nullable=False),
    sa.Column('height', sa.Integer(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=True),
    sa.Column('node_id', sa.Text(), nullable=True),
    sa.Column('metadata', sa.Text(), nullable=True),
    sa.Column('is_intermediate', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('starred', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('has_workflow', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('image_subfolder', sa.Text(), server_default='', nullable=False),
    sa.Column('board_id', sa.Text(), nullable=True),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['board_id'], ['boards.board_id'], name=op.f('fk_images_board_id'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('image_name', name=op.f('pk_images'))
    )
    op.create_index('ix_images_board', 'images', ['board_id', 'is_intermediate', sa.literal_column('starred DESC'), sa.literal_column('created_at DESC'), sa.literal_column('image_name DESC'), 'image_category'])
    op.create_index('ix_images_gallery', 'images', ['is_intermediate', sa.literal_column('starred DESC'), sa.literal_column('created_at DESC'), sa.literal_column('image_name DESC'), 'image_category'])
    op.create_index('ix_images_starred', 'images', [sa.literal_column('starred DESC'), sa.literal_column('created_at DESC'), sa.literal_column('image_name DESC')])

    op.execute(
        "INSERT INTO users (user_id, email, display_name, is_admin, created_at, updated_at) VALUES "
        "('system', 'system@system.invokeai', 'System', 1, strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now'))"
    )


def downgrade() -> None:
    """Drop every table."""
    for table in ("images", "users", "session_queue", "models", "boards", "app_state"):
        op.drop_table(table)
