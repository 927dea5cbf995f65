"""What was made on each day, counted."""

import sqlalchemy as sa

from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None

COUNTED = "created_date, user_id, kind, category"


def _sort_of(row: str, word: str) -> str:
    return f"substr({row}.created_at, 1, 10), {row}.user_id, '{word}', {row}.{word}_category"


def _one_more(row: str, word: str) -> str:
    return (
        f"INSERT INTO day_counts ({COUNTED}, number) SELECT {_sort_of(row, word)}, 1 WHERE NOT {row}.is_intermediate "
        f"ON CONFLICT ({COUNTED}) DO UPDATE SET number = number + 1"
    )


def _one_less(row: str, word: str) -> str:
    return f"UPDATE day_counts SET number = number - 1 WHERE ({COUNTED}) = ({_sort_of(row, word)}) AND NOT {row}.is_intermediate"


def upgrade() -> None:
    """Make the table, count what is there, and have triggers count what comes and goes."""
    op.create_table('day_counts',
    sa.Column('created_date', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('category', sa.Text(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('created_date', 'user_id', 'kind', 'category', name=op.f('pk_day_counts')),
    sqlite_with_rowid=False
    )
    for word in ("image", "video"):
        table, category = f"{word}s", f"{word}_category"
        op.execute(
            f"INSERT INTO day_counts ({COUNTED}, number) SELECT {_sort_of(table, word)}, count(*) FROM {table} "
            "WHERE NOT is_intermediate GROUP BY 1, 2, 3, 4"
        )
        op.execute(f"CREATE TRIGGER {table}_of_day_added AFTER INSERT ON {table} BEGIN {_one_more('new', word)}; END")
        op.execute(f"CREATE TRIGGER {table}_of_day_removed AFTER DELETE ON {table} BEGIN {_one_less('old', word)}; END")
        op.execute(
            f"CREATE TRIGGER {table}_of_day_changed AFTER UPDATE OF is_intermediate, {category}, user_id, created_at ON {table} "
            f"BEGIN {_one_less('old', word)}; {_one_more('new', word)}; END"
        )


def downgrade() -> None:
    """Drop the triggers and the table."""
    for word in ("image", "video"):
        for what in ("added", "removed", "changed"):
            op.execute(f"DROP TRIGGER {word}s_of_day_{what}")
    op.drop_table('day_counts')
