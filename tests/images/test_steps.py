"""What a page costs in steps of SQLite's machine: no more in a long list than in a short one, whatever its order and filters."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from typing import Any

import pytest

from invokeclone.images import store
from invokeclone.images.gallery import store as gallery
from invokeclone.images.lists import deep_pages, search
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql import sqlite_database as database
from invokeclone.kit.sql.database import Database, Rows

pytestmark = pytest.mark.sqlite("counts steps of SQLite's virtual machine")

MANY = 4000
EACH = 10
"""Steps between two counts."""


class Counting(database.SqliteDatabase):
    """A database that counts the steps of single reads."""

    def __init__(self, of: Database) -> None:
        """Read the file of another one."""
        assert isinstance(of, database.SqliteDatabase)
        super().__init__(of.path)
        assert of.path is not None
        self.reader = sqlite3.connect(of.path)
        database._on_connect(self.reader, None)
        self.steps = 0
        self.reader.set_progress_handler(self._step, EACH)

    def _step(self) -> int:
        self.steps += EACH
        return 0

    async def fetch(self, sql: str, values: dict[str, Any]) -> Rows:
        """Run one SELECT."""
        return self.reader.execute(sql, values).fetchall()


@pytest.fixture
async def counting(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fill a gallery: one image in forty is an asset, one in forty on the board, one in fifty is starred; 40 days."""
    monkeypatch.setattr(deep_pages, "DEEP_OFFSET", 100)
    async with resources.database.write() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO boards (board_id, board_name, created_at, updated_at) VALUES ('b', 'b', '', '')"
        )
        await connection.exec_driver_sql(
            f"""
            WITH RECURSIVE numbers (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM numbers WHERE x < {MANY})
            INSERT INTO images (image_name, image_origin, image_category, width, height, starred, is_intermediate, board_id,
                created_at, updated_at, metadata)
            SELECT x || '.png', 'internal', CASE WHEN x % 40 THEN 'general' ELSE 'user' END, 1, 1, x % 50 = 1, x % 30 = 1,
                CASE WHEN x % 40 = 1 THEN 'b' END, strftime('%Y-%m-%d %H:%M:%f', 1600000000 + x * 864, 'unixepoch'), '',
                '{{"positive_prompt": "number ' || x || CASE WHEN x % 100 = 7 THEN ' Zebra' ELSE '' END || '"}}'
            FROM numbers
            """
        )
    reading = Counting(resources.database)
    with closing(reading.reader):
        yield reading


LISTS: list[dict[str, Any]] = [
    {},
    {"is_intermediate": False},
    {"is_intermediate": False, "categories": ("general",)},
    {"is_intermediate": False, "categories": ("user", "mask")},
    {"categories": ("user",)},
    {"is_intermediate": False, "categories": ("user", "mask"), "board_id": "none"},
    {"is_intermediate": False, "categories": ("general",), "board_id": "none"},
    {"is_intermediate": False, "board_id": "b"},
    {"board_id": "b"},
    {"is_intermediate": False, "categories": ("mask",)},
]


def orders() -> Iterator[dict[str, Any]]:
    """Yield the orders of a list."""
    for order_dir, starred_first in product(SQLiteDirection, (True, False)):
        yield {"order_dir": order_dir, "starred_first": starred_first}


@pytest.mark.parametrize("more", LISTS)
async def test_first_and_last_pages_have_equal_cost_in_every_order(counting: Counting, more: dict[str, Any]) -> None:
    for order in orders():
        image_filter = ImageFilter(**more, **order)
        for store_of in (store, gallery):
            for offset in (0, await store.count(counting, image_filter) - 10):
                counting.steps = 0
                await store_of.page_json(counting, image_filter, max(offset, 0), 10)
                assert counting.steps < MANY / 2, (order, offset)


@pytest.mark.parametrize("more", LISTS[1:4])
async def test_middle_pages_start_at_their_day(counting: Counting, more: dict[str, Any]) -> None:
    for order in orders():
        counting.steps = 0
        await store.page_json(counting, ImageFilter(**more, **order), 2000, 10)
        assert counting.steps < 2 * MANY, order


@pytest.mark.parametrize(
    ("term", "total"), [("qz", 0), ("Ze", 40), ("ы", 0), ("日本", 0), ("zebra", 40), ("qqqxyz", 0)]
)
async def test_searches_read_only_candidate_rows(counting: Counting, term: str, total: int) -> None:
    for order in orders():
        counting.steps = 0
        image_filter = await search.with_text_query(counting, ImageFilter(search_term=term, **order))
        assert await store.count(counting, image_filter) == total
        await store.page_json(counting, image_filter, 0, 10)
        assert counting.steps < 2 * MANY, order
