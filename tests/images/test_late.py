"""Pages that begin on a day told by the counts of days: they hold what the walked list holds there."""

import json
import random

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects import sqlite

from invokeclone.images import store
from invokeclone.images.gallery import store as gallery
from invokeclone.images.lists import deep_pages
from invokeclone.images.media_kinds import VIDEOS
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.resources import Resources
from invokeclone.tables import images, videos

TOTAL = 600
LISTS = [
    {},
    {"categories": ("general",)},
    {"categories": ("mask", "control")},
    {"order_dir": SQLiteDirection.Ascending},
    {"owner": "ann"},
    {"owner": "ann", "order_dir": SQLiteDirection.Ascending, "categories": ("mask",)},
    {"owner": "nobody"},
    {"starred_first": False},
    {"starred_first": False, "order_dir": SQLiteDirection.Ascending, "categories": ("general",)},
    {"starred_first": False, "owner": "ann", "categories": ("mask",)},
]


@pytest.fixture
async def filled(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> Resources:
    """Make images and videos on 23 days, in no order, some starred, some intermediate, of two owners; skip nothing one by one."""
    monkeypatch.setattr(deep_pages, "DEEP_OFFSET", 0)
    rng = random.Random(5)

    def row(word: str, number: int) -> dict[str, object]:
        return {
            f"{word}_name": f"{number:05}.png", f"{word}_origin": "internal",
            f"{word}_category": rng.choice(["general", "mask", "control"]), "width": 1, "height": 1,
            "is_intermediate": rng.random() < 0.2, "starred": False, "user_id": rng.choice(["system", "ann"]),
            "created_at": f"2026-01-{1 + rng.randrange(23):02} 00:00:{number % 5:02}.000", "updated_at": "x",
        }  # fmt: skip

    async with resources.database.write() as connection:
        await connection.execute(insert(images), [row("image", number) for number in range(TOTAL)])
        await connection.execute(
            insert(videos), [row("video", number) | {"duration": 1} for number in range(TOTAL // 3)]
        )
    return resources


async def star(resources: Resources, every: int) -> None:
    """Star one in so many."""
    async with resources.database.write() as connection:
        for table, name in ((images, images.c.image_name), (videos, videos.c.video_name)):
            names = (await connection.scalars(select(name).order_by(name))).all()
            starred = [{"item": item} for item in names[every - 1 :: every]]
            await connection.execute(update(table).where(name == bindparam("item")).values(starred=True), starred)


@pytest.mark.parametrize("more", LISTS)
@pytest.mark.parametrize("stars", [0, 9])
async def test_deep_pages_match_the_whole_list(
    filled: Resources, monkeypatch: pytest.MonkeyPatch, more: dict[str, object], stars: int
) -> None:
    if stars:
        await star(filled, stars)
        monkeypatch.setattr(deep_pages, "DEEP_OFFSET", TOTAL // stars + TOTAL // 3 // stars)
    image_filter = ImageFilter(is_intermediate=False, **more)
    async with filled.database.read() as connection:
        lists = [
            (
                json.loads(b"".join(await store.names_json(connection, image_filter)))["image_names"],
                "image_name",
                store.page_json,
            ),
            (
                json.loads(b"".join(await store.names_json(connection, image_filter, VIDEOS)))["image_names"],
                "video_name",
                lambda *asked: store.page_json(*asked, VIDEOS),
            ),
            (
                json.loads(b"".join(await gallery.names_json(connection, image_filter, "names")))["names"],
                "name",
                gallery.page_json,
            ),
        ]
        for names, key, page in lists:
            for offset in range(0, len(names) + 20, 13):
                body = json.loads(await page(connection, image_filter, offset, 10))
                assert [item[key] for item in body["items"]] == names[offset : offset + 10]
                assert body["total"] == len(names)


@pytest.mark.parametrize("offset", [250, 400])
async def test_rows_before_the_pages_day_are_not_scanned(filled: Resources, offset: int) -> None:
    image_filter = ImageFilter(is_intermediate=False)
    async with filled.database.read() as connection:
        total = (await connection.execute(store.count_statement(image_filter))).scalar_one()
        part = await store.page_part(connection, image_filter, (store.IMAGES,), offset, 10, total)
    assert part.backwards == (offset > total - offset)
    assert part.day is not None
    assert part.skip < TOTAL // 12 < min(offset, total - offset - 10)


@pytest.mark.parametrize(
    "more",
    [
        {"board_id": "none"},
        {"origin": "internal"},
        {"search_term": "x"},
        {"created_date": "2026-01-03"},
        {"is_intermediate": None},
        {"is_intermediate": True},
    ],
)
def test_other_filters_have_no_day_counts(more: dict[str, object]) -> None:
    assert deep_pages.has_day_counts(ImageFilter(is_intermediate=False))
    assert not deep_pages.has_day_counts(ImageFilter(**({"is_intermediate": False} | more)))


async def test_pages_within_starred_items_do_not_use_day_counts(
    filled: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    await star(filled, 2)
    image_filter = ImageFilter(is_intermediate=False)
    async with filled.database.read() as connection:
        total = (await connection.execute(store.count_statement(image_filter))).scalar_one()
        assert (await store.page_part(connection, image_filter, (store.IMAGES,), 5, 10, total)).day is None
        starred = await store.count_starred(connection, image_filter, (store.IMAGES,))
        near = deep_pages.part_from_nearer_end(total, starred - 5, 10)
        assert (
            await deep_pages.skip_to_day(connection, image_filter, (store.IMAGES,), near, of=total, starred=starred)
            == near
        )
        monkeypatch.setattr(deep_pages, "DEEP_OFFSET", starred)
        near = deep_pages.part_from_nearer_end(total, starred + 50, 10)
        assert (
            await deep_pages.skip_to_day(connection, image_filter, (store.IMAGES,), near, of=total, starred=starred)
        ).day


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("direction", list(SQLiteDirection))
@pytest.mark.parametrize(
    ("starred_first", "index"),
    [(True, "ix_images_gallery (is_intermediate=? AND starred=?"), (False, "ix_images_newest (is_intermediate=?")],
)
async def test_the_query_plan_enters_the_index_at_the_day(
    resources: Resources, direction: SQLiteDirection, index: str, *, backwards: bool, starred_first: bool
) -> None:
    image_filter = ImageFilter(
        is_intermediate=False, categories=("general",), order_dir=direction, starred_first=starred_first
    )
    part = {"skip": 5, "take": 10, "day": "2026-01-05"}
    statement = store.page_names(image_filter, backwards=backwards, from_day=True).params(part)
    words = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    async with resources.database.read() as connection:
        query_plan = [row[3] for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}")]
    entered = "created_at<?" if deep_pages.newest_first(image_filter, backwards=backwards) else "created_at>?"
    assert query_plan == [f"SEARCH images USING COVERING INDEX {index} AND {entered})"]
