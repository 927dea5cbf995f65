"""Relationships of models."""

import sqlalchemy as sa

from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of pairs, empty."""
    op.create_table('model_relationships',
    sa.Column('model_key_1', sa.Text(), nullable=False),
    sa.Column('model_key_2', sa.Text(), nullable=False),
    sa.CheckConstraint('model_key_1 < model_key_2', name=op.f('ck_model_relationships_order')),
    sa.ForeignKeyConstraint(['model_key_1'], ['models.key'], name=op.f('fk_model_relationships_model_key_1'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['model_key_2'], ['models.key'], name=op.f('fk_model_relationships_model_key_2'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('model_key_1', 'model_key_2', name=op.f('pk_model_relationships'))
    )
    op.create_index('ix_model_relationships_second', 'model_relationships', ['model_key_2'])
