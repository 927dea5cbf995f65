"""Lists of all names, up to a million, serialized as JSON by the database."""

from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, func, select

from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source


def json_array_statement(ordered_list: Subquery, item: ColumnElement[Any]) -> Select[Any]:
    """Return the statement for a JSON array of the items of an ordered list, as bytes, and their number.

    A million names are 40 MB of JSON; SQLite writes them in half the time needed to return rows, without holding the
    interpreter lock.
    """
    columns: tuple[ColumnElement[Any], ...] = (func.utf8(func.json_group_array(item)), func.count())
    return select(*columns).select_from(ordered_list)


async def document(source: Source, statement: PreparedStatement, key: str, starred_count: int) -> list[bytes]:
    """Return the JSON of a `json_array_statement` under `key` with its counts, as pieces to be joined."""
    row = await statement.first(source)
    assert row is not None
    items, total = row
    return [
        b'{"%b":' % key.encode(),
        items,
        b',"starred_count":%d,"total_count":%d}' % (starred_count, total),
    ]
