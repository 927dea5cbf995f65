"""Merging lists that indexes have in order: a UNION ALL that both databases execute without sorting all rows."""

from typing import Any

from sqlalchemy import CompoundSelect, Select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.selectable import _CompoundSelectKeyword


class OrderedUnion(CompoundSelect[Any]):
    """A UNION ALL whose branches an index has in the order of the whole.

    SQLite merges the branches by itself. PostgreSQL does if each is ordered and limited to the rows that may be read of
    it; otherwise it reads all rows of all branches and sorts them.
    """

    inherit_cache = True


def merge_ordered(*branches: Select[Any]) -> OrderedUnion:
    """Return the union of selects; order and limit it as a whole."""
    return OrderedUnion(_CompoundSelectKeyword.UNION_ALL, *branches)


@compiles(OrderedUnion, "postgresql")
def _with_ordered_branches(union: OrderedUnion, compiler: Any, **options: Any) -> str:
    limit, offset = union._limit_clause, union._offset_clause  # noqa: SLF001  (the compiler's own attributes)
    order = union._order_by_clauses  # noqa: SLF001
    branches = union.selects
    if limit is not None:
        rows = limit if offset is None else limit + offset
        branches = [branch.order_by(*order).limit(rows) for branch in branches]  # type: ignore[attr-defined]
    merged: CompoundSelect[Any] = CompoundSelect(_CompoundSelectKeyword.UNION_ALL, *branches)
    return str(compiler.visit_compound_select(merged.order_by(*order).limit(limit).offset(offset), **options))
