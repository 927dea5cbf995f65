"""Lists and searches of a large gallery use indexes in PostgreSQL: by its own plans, without forbidding it anything."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from invokeclone.boards import store as boards
from invokeclone.boards.schemas import BoardRecordOrderBy
from invokeclone.images import store
from invokeclone.images.gallery import store as gallery
from invokeclone.images.lists import search
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from tests.postgres import PostgresServer
from tests.postgres_plans import Explaining, steps

MANY = 20_000
FEW = 1000
"""Rows that may be sorted: a page, or the candidates of a search."""


@pytest.fixture(scope="module")
def large(postgres: PostgresServer) -> str:
    """Fill a gallery: one image in forty is an asset, one in fifty is starred, ten boards, a rare word."""
    address = postgres.new_database()
    postgres.run(
        "INSERT INTO boards (board_id, board_name, created_at, updated_at) SELECT 'b' || x, 'b', '', '' FROM generate_series(0, 9) x",
        f"""
        INSERT INTO images (image_name, image_origin, image_category, width, height, starred, is_intermediate, board_id,
            user_id, created_at, updated_at, metadata)
        SELECT x || '.png', 'internal', CASE WHEN x % 40 = 0 THEN 'user' ELSE 'general' END, 1, 1, (x % 50 = 1)::int,
            (x % 30 = 1)::int, 'b' || x % 11, CASE WHEN x % 3 = 0 THEN 'ann' ELSE 'system' END,
            to_char(to_timestamp(1600000000 + x * 864), 'YYYY-MM-DD HH24:MI:SS.MS'), '',
            '{{"positive_prompt": "number ' || x || CASE WHEN x % 500 = 7 THEN ' Zebra' ELSE '' END || '"}}'
        FROM generate_series(1, {MANY}) x
        """.replace("'b' || x % 11", "CASE WHEN x % 11 < 10 THEN 'b' || x % 11 END"),
        "VACUUM ANALYZE",  # which also moves the pending entries of the text index
        database=address.rpartition("/")[2].partition("?")[0],
    )
    return address


@pytest.fixture
async def explaining(large: str) -> AsyncIterator[Explaining]:
    database = Explaining(large)
    yield database
    await database.close()


def check(plans: list[Any]) -> None:
    """Raise AssertionError if a plan reads all images or sorts many rows."""
    assert plans
    for plan in plans:
        for step in steps(plan):
            text = json.dumps(plan, indent=1)
            assert not (step["Node Type"] == "Seq Scan" and step["Relation Name"] == "images"), text
            assert "Sort" not in step["Node Type"] or step["Plan Rows"] <= FEW, text


LISTS: list[dict[str, Any]] = [
    {},
    {"is_intermediate": False},
    {"is_intermediate": False, "categories": ("general",)},
    {"is_intermediate": False, "categories": ("user", "mask")},
    {"is_intermediate": False, "categories": ("general",), "board_id": "none"},
    {"is_intermediate": False, "board_id": "b3"},
    {"is_intermediate": False, "owner": "ann"},
    {"is_intermediate": False, "starred_first": False},
    {"is_intermediate": False, "categories": ("general",), "order_dir": SQLiteDirection.Ascending},
]


@pytest.mark.parametrize("more", LISTS)
async def test_pages_of_the_gallery_use_indexes(explaining: Explaining, more: dict[str, Any]) -> None:
    image_filter = ImageFilter(**more)
    await store.page_json(explaining, image_filter, 0, 20)
    await store.page_json(explaining, image_filter, 100, 20)
    await gallery.page_json(explaining, image_filter, 0, 20)
    check(explaining.plans)


@pytest.mark.parametrize("term", ["zebra", "ZEBRA", "number 1234", "кот"])
async def test_searches_use_the_text_index(explaining: Explaining, term: str) -> None:
    image_filter = await search.with_text_query(explaining, ImageFilter(search_term=term, is_intermediate=False))
    assert image_filter.text_query
    await store.count(explaining, image_filter)
    await store.page_json(explaining, image_filter, 0, 20)
    await store.names_json(explaining, image_filter)
    check(explaining.plans)


async def test_single_records_and_boards_use_indexes(explaining: Explaining) -> None:
    await store.get(explaining, "7.png")
    await store.by_names(explaining, store.IMAGES, ["7.png", "8.png"])
    check(explaining.plans)
    explaining.plans.clear()
    await boards.list_all_json(explaining, BoardRecordOrderBy.CreatedAt, SQLiteDirection.Descending)
    check(explaining.plans)
