"""Lists of all names, which may be a million: written as JSON by the database."""

from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Select, Subquery, cast, func, select

from invokeclone.kit.sql.prepared import Prepared, Source


def gathered(listed: Subquery, item: ColumnElement[Any]) -> Select[Any]:
    """Return the statement for a JSON array of the items of an ordered list, as bytes, and their number.

    A million names are 40 MB of JSON that SQLite writes in half the time that they take as rows, and without holding Python up.
    """
    told: tuple[ColumnElement[Any], ...] = (cast(func.json_group_array(item), LargeBinary), func.count())
    return select(*told).select_from(listed)


async def document(source: Source, statement: Prepared, key: str, starred_count: int) -> list[bytes]:
    """Return the JSON of a `gathered` list under `key` and what is counted of it; its pieces are to be joined."""
    found = await statement.first(source)
    assert found is not None
    items, total = found
    return [
        b'{"%b":' % key.encode(),
        items,
        b',"starred_count":%d,"total_count":%d}' % (starred_count, total),
    ]
