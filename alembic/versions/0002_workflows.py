"""Workflows, style presets and system prompts."""

import sqlalchemy as sa

from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, empty: what comes with the application is put in at each start."""
    op.create_table('workflows',
    sa.Column('workflow_id', sa.Text(), nullable=False),
    sa.Column('category', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.Column('tags', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('is_public', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.Column('opened_at', sa.Text(), nullable=True),
    sa.Column('thumbnail', sa.Text(), nullable=True),
    sa.Column('call_reason', sa.Text(), server_default='unknown', nullable=False),
    sa.Column('call_message', sa.Text(), nullable=True),
    sa.Column('judged_by', sa.Text(), server_default='', nullable=False),
    sa.Column('workflow', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('workflow_id', name=op.f('pk_workflows'))
    )
    op.create_index('ix_workflows_listing', 'workflows', ['category', 'name', 'workflow_id'])
    op.create_index('ix_workflows_judged', 'workflows', ['judged_by'])

    op.create_table('style_presets',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('positive_prompt', sa.Text(), nullable=False),
    sa.Column('negative_prompt', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('is_public', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('image', sa.Text(), nullable=True),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_style_presets'))
    )

    op.create_table('system_prompts',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('content', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text(), server_default='system', nullable=False),
    sa.Column('is_public', sa.Boolean(), server_default=sa.text('0'), nullable=False),
    sa.Column('created_at', sa.Text(), nullable=False),
    sa.Column('updated_at', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_system_prompts'))
    )

    op.create_index('ix_session_queue_calls', 'session_queue', ['parent_item_id'], sqlite_where=sa.text('parent_item_id IS NOT NULL'))


def downgrade() -> None:
    """Drop the three tables and the index."""
    op.drop_index('ix_session_queue_calls', 'session_queue')
    for table in ("system_prompts", "style_presets", "workflows"):
        op.drop_table(table)
