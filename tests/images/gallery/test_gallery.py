"""Galleries: their order, their filters, their pages, and that no list sorts what an index has in order."""

import itertools
import random
import re
from typing import Any

import httpx
import pytest
from sqlalchemy.dialects import sqlite

from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.gallery import store
from invokeclone.images.lists import queries
from invokeclone.images.media_kinds import IMAGES, VIDEOS
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from tests.images.gallery.conftest import row

GALLERY = "/api/v1/gallery"
DAY = "2026-01-0{}"


def many(word: str, extension: str, number: int, seed: int) -> list[dict[str, Any]]:
    """Return records with few moments, so that many are of the same one."""
    rng = random.Random(seed)
    return [
        row(
            word,
            f"{rng.getrandbits(64):016x}.{extension}",
            f"{DAY.format(rng.randint(1, 3))} 0{rng.randint(0, 2)}:00:00.000",
            category=rng.choice(["general", "general", "mask", "user"]),
            origin=rng.choice(["internal", "external"]),
            is_intermediate=rng.random() < 0.3,
            starred=rng.random() < 0.2,
            board_id=rng.choice([None, "b", "c"]),
            metadata=rng.choice([None, '{"a": "cat"}', '{"a": "dog"}']),
        )
        for _ in range(number)
    ]


def compute_expected(rows: list[tuple[str, dict[str, Any]]], **params: Any) -> list[tuple[str, str]]:
    """Return kinds and names as the specification orders and filters them, without any database."""
    tests = {
        "origin": lambda word, item, value: item[f"{word}_origin"] == value,
        "categories": lambda word, item, value: item[f"{word}_category"] in value,
        "is_intermediate": lambda _, item, value: item["is_intermediate"] == (value == "true"),
        "board_id": lambda _, item, value: item["board_id"] == (None if value == "none" else value),
        "search_term": lambda _, item, value: value.lower() in (item["metadata"] or "") or value in item["created_at"],
        "created_date": lambda _, item, value: item["created_at"][:10] == value,
    }
    matches = [pair for pair in rows if all(test(*pair, params[key]) for key, test in tests.items() if key in params)]
    matches.sort(
        key=lambda pair: (pair[1]["created_at"], pair[0], pair[1][f"{pair[0]}_name"]),
        reverse=params.get("order_dir", "DESC") == "DESC",
    )
    if params.get("starred_first", "true") == "true":
        matches.sort(key=lambda pair: not pair[1]["starred"])
    return [(word, record[f"{word}_name"]) for word, record in matches]


FILTERS = {
    "origin": ["external"],
    "categories": [["general"], ["mask", "user"]],
    "is_intermediate": ["false", "true"],
    "board_id": ["none", "b", "unknown"],
    "search_term": ["CAT", "2026-01-02"],
    "created_date": ["2026-01-02", "zzz", "2026-01", ""],
}
ORDERS = [{"order_dir": way, "starred_first": first} for way in ("DESC", "ASC") for first in ("true", "false")]
ASKED = [
    *[{name: value} for name, values in FILTERS.items() for value in values],
    *[
        {"board_id": board, "is_intermediate": "false", "categories": categories}
        for board in ("none", "b")
        for categories in FILTERS["categories"]
    ],
    {"is_intermediate": "false", "categories": ["general"], "created_date": "2026-01-02"},
    {"is_intermediate": "false", "search_term": "dog", "board_id": "none"},
    {},
]


async def test_order_and_filters_match_the_specification(client: httpx.AsyncClient, fill) -> None:
    """Every list against the same list made without a database: starred, time, kind, name."""
    images, videos = many("image", "png", 300, 1), many("video", "mp4", 120, 2)
    await fill(images, videos, {"b": {}, "c": {}})
    rows = [("image", record) for record in images] + [("video", record) for record in videos]
    starred = {record[f"{word}_name"] for word, record in rows if record["starred"]}
    for filters, order in itertools.product(ASKED, ORDERS):
        params = {**filters, **order}
        answer = (await client.get(f"{GALLERY}/item_names", params=params)).json()
        right = compute_expected(rows, **params)
        names = [name for _, name in right]
        assert answer["item_names"] == names, params
        assert answer["total_count"] == len(names)
        assert answer["starred_count"] == (len(starred & set(names)) if order["starred_first"] == "true" else 0)
        if "created_date" in params:
            continue
        alone = [name for _, name in compute_expected(rows[: len(images)], **params)]
        of_images = {("image_origin" if key == "origin" else key): value for key, value in params.items()}
        assert (await client.get("/api/v1/images/names", params=of_images)).json()["image_names"] == alone, params
        for offset in (3, len(alone) * 3 // 4):
            page = (await client.get("/api/v1/images/", params={**of_images, "offset": offset})).json()
            assert [record["image_name"] for record in page["items"]] == alone[offset : offset + 10], params
        refs = (await client.get(f"{GALLERY}/items/names", params=params)).json()
        assert [(record["kind"], record["name"]) for record in refs["items"]] == right
        assert (refs["total_count"], refs["starred_count"]) == (answer["total_count"], answer["starred_count"])
        for offset in (5, max(len(right) - 12, 0), len(right) // 2 + 1):  # the last two are read from the end
            page = (await client.get(f"{GALLERY}/items/", params={**params, "offset": offset, "limit": 20})).json()
            assert [(record["kind"], record["name"]) for record in page["items"]] == right[offset : offset + 20], params
            assert (page["total"], page["offset"], page["limit"]) == (len(right), offset, 20)


async def test_full_item(client: httpx.AsyncClient, fill) -> None:
    await fill([row("image", "a b.png", starred=True)], [row("video", "v.mp4", board_id="b")], {"b": {}})
    page = (await client.get(f"{GALLERY}/items/")).json()
    shared = {
        "width": 4, "height": 3, "category": "general", "is_intermediate": False, "created_at": "2026-01-01 00:00:00.000"
    }  # fmt: skip
    assert page == {
        "limit": 10,
        "offset": 0,
        "total": 2,
        "items": [
            {
                **shared, "kind": "image", "name": "a b.png", "full_url": "api/v1/images/i/a%20b.png/full",
                "thumbnail_url": "api/v1/images/i/a%20b.png/thumbnail", "starred": True, "board_id": None,
                "duration": None, "fps": None,
            },
            {
                **shared, "kind": "video", "name": "v.mp4", "full_url": "api/v1/videos/i/v.mp4/full",
                "thumbnail_url": "api/v1/videos/i/v.mp4/thumbnail", "starred": False, "board_id": "b",
                "duration": 1.5, "fps": 8.0,
            },
        ],
    }  # fmt: skip


async def test_empty_galleries(client: httpx.AsyncClient) -> None:
    for path, key in (("item_names", "item_names"), ("items/names", "items")):
        answer = await client.get(f"{GALLERY}/{path}")
        assert answer.json() == {key: [], "starred_count": 0, "total_count": 0}
    assert (await client.get(f"{GALLERY}/items/")).json() == {"limit": 10, "offset": 0, "total": 0, "items": []}


async def test_empty_pages_and_offsets_beyond_the_end(client: httpx.AsyncClient, fill) -> None:
    await fill([row("image", "a.png")])
    assert (await client.get(f"{GALLERY}/items/", params={"limit": 0})).json()["items"] == []
    page = (await client.get(f"{GALLERY}/items/", params={"offset": 10**30})).json()
    assert (page["items"], page["total"]) == ([], 1)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": -1}, {"limit": 1001}, {"offset": -1}, {"order_dir": "up"}, {"categories": "x"}, {"origin": "x"},
        {"is_intermediate": "x"}, {"search_term": "x" * 4001},
    ],
)  # fmt: skip
async def test_invalid_queries_are_refused(client: httpx.AsyncClient, query: dict[str, Any]) -> None:
    assert (await client.get(f"{GALLERY}/items/", params=query)).status_code == 422


async def test_long_name_lists_are_gzipped(client: httpx.AsyncClient, fill) -> None:
    await fill(many("image", "png", 900, 3), board={"b": {}, "c": {}})
    answer = await client.get(f"{GALLERY}/item_names", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["total_count"] == 900


GENERAL = (ImageCategory.GENERAL,)
ASSETS = tuple(category for category in ImageCategory if category not in GENERAL)
LISTS = [
    (ImageFilter(), {True: "starred", False: "starred"}),
    (ImageFilter(is_intermediate=False), {True: "gallery", False: "newest"}),
    (ImageFilter(is_intermediate=False, categories=GENERAL), {True: "gallery", False: "newest"}),
    (ImageFilter(categories=GENERAL), {True: "gallery", False: "newest"}),
    (ImageFilter(is_intermediate=False, categories=ASSETS), {True: "assets", False: "assets"}),
    (ImageFilter(categories=ASSETS[:1]), {True: "assets", False: "assets"}),
    (ImageFilter(is_intermediate=False, categories=ASSETS, board_id="none"), {True: "assets", False: "assets"}),
    (ImageFilter(is_intermediate=False, categories=GENERAL, board_id="none"), {True: "board", False: "board"}),
    (ImageFilter(is_intermediate=False, categories=ASSETS, board_id="b"), {True: "board", False: "board"}),
    (ImageFilter(is_intermediate=False, board_id="b"), {True: "board", False: "board"}),
    (ImageFilter(board_id="b"), {True: "board", False: "board"}),
    (ImageFilter(is_intermediate=False, created_date="2026-01-01"), {True: "gallery", False: "newest"}),
    (ImageFilter(owner="ann"), {True: "owned", False: "owned"}),
    (ImageFilter(owner="ann", is_intermediate=False, categories=ASSETS), {True: "owned", False: "owned"}),
    (ImageFilter(owner="ann", board_id="none", categories=GENERAL), {True: "owned_board", False: "owned_board"}),
]


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize(("wanted", "index"), LISTS)
@pytest.mark.parametrize("order_dir", list(SQLiteDirection))
@pytest.mark.parametrize("starred_first", [True, False])
async def test_every_list_merges_indexes_without_sorting(resources, wanted, index, order_dir, starred_first) -> None:
    """No row of an image is read; of videos, which are few, SQLite reads the row for the generated column."""
    wanted = wanted.model_copy(update={"order_dir": order_dir, "starred_first": starred_first})
    for kinds in ((IMAGES,), (IMAGES, VIDEOS)):
        statements = [
            queries.select_ordered(wanted, kinds, backwards=backwards).limit(100).offset(500)
            for backwards in (False, True)
        ]
        for statement in (*statements, store.all_names(wanted, kinds), store.all_names(wanted, kinds, with_kinds=True)):
            query_plan = await plan(resources, statement)
            searched = [line for line in query_plan if re.match(r"(SEARCH|SCAN) (images|videos) ", line)]
            images = [line for line in searched if " images " in line]
            assert images, query_plan
            assert all(f"COVERING INDEX ix_images_{index[starred_first]} (" in f"{line} (" for line in images), (
                query_plan
            )
            assert any(" videos " in line for line in searched) == (VIDEOS in kinds), query_plan
            assert all(" USING INDEX ix_videos_" in line for line in searched if " videos " in line), query_plan
            assert not any("TEMP B-TREE" in line for line in query_plan), query_plan


@pytest.mark.sqlite("reads SQLite's plan of a query")
async def test_a_single_kind_needs_no_merge(resources) -> None:
    query_plan = await plan(resources, store.all_names(ImageFilter(is_intermediate=False), (IMAGES,)))
    assert not any("MERGE" in line or "videos" in line or "TEMP B-TREE" in line for line in query_plan), query_plan


async def plan(resources, statement) -> list[str]:
    words = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    async with resources.database.read() as connection:
        rows = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}")).all()
    return [line[3] for line in rows]
