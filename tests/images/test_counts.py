"""What the database keeps by itself: how many images there are of each sort, and the text index; always as a count would say."""

import json
import random

import pytest
from sqlalchemy import delete, func, insert, literal_column, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.sql.database import Database
from invokeclone.tables import boards, image_counts, images

SORTS = ("user_id", "board_id", "is_intermediate", "image_category", "image_origin", "starred")


def row(number: int, **columns: object) -> dict[str, object]:
    rng = random.Random(number)
    return {
        "image_name": f"{number:05}.png",
        "image_origin": rng.choice(["internal", "external"]),
        "image_category": rng.choice(["general", "mask"]),
        "width": 1,
        "height": 1,
        "is_intermediate": rng.random() < 0.3,
        "starred": rng.random() < 0.3,
        "board_id": rng.choice([None, "a", "b"]),
        "user_id": rng.choice(["system", "ann"]),
        "created_at": f"2026-01-01 00:00:{number % 60:02}.000",
        "updated_at": "x",
        "metadata": json.dumps({"prompt": f"picture number {number}"}),
        **columns,
    }


async def make(connection: AsyncConnection, numbers: range) -> None:
    await connection.execute(insert(images), [row(number) for number in numbers])


async def board_rows(connection: AsyncConnection) -> None:
    rows = [{"board_id": name, "board_name": name, "created_at": "x", "updated_at": "x"} for name in "ab"]
    await connection.execute(insert(boards), rows)


async def read_counts(connection: AsyncConnection) -> dict[tuple[object, ...], int]:
    columns = [image_counts.c[name] for name in SORTS]
    rows = await connection.execute(select(*columns, image_counts.c.number).where(image_counts.c.number != 0))
    return {tuple(record[:-1]): record[-1] for record in rows}


async def compute_counts(connection: AsyncConnection) -> dict[tuple[object, ...], int]:
    sorts = [
        func.coalesce(images.c.board_id, literal_column("''")) if name == "board_id" else images.c[name]
        for name in SORTS
    ]
    rows = await connection.execute(select(*sorts, func.count()).group_by(*sorts))
    return {tuple(record[:-1]): record[-1] for record in rows}


async def in_index(connection: AsyncConnection, query: str) -> set[int]:
    rows = await connection.execute(
        text("SELECT rowid FROM images_text WHERE images_text MATCH :query"), {"query": query}
    )
    return set(rows.scalars())


async def test_counts_follow_every_change(database: Database) -> None:
    async with database.write() as connection:
        await board_rows(connection)
        await make(connection, range(300))
        assert await read_counts(connection) == await compute_counts(connection)
        first = images.c.image_id <= 50
        await connection.execute(update(images).where(first).values(starred=True, board_id="b"))
        await connection.execute(update(images).where(first).values(is_intermediate=True, image_category="user"))
        await connection.execute(update(images).where(first).values(session_id="s"))
        assert await read_counts(connection) == await compute_counts(connection)
        await connection.execute(delete(images).where(images.c.image_id.between(20, 90)))
        assert await read_counts(connection) == await compute_counts(connection)


async def test_counts_follow_the_deletion_of_a_board(database: Database) -> None:
    """Its images are on no board then, which the foreign key does and no statement of ours."""
    async with database.write() as connection:
        await board_rows(connection)
        await make(connection, range(60))
        await connection.execute(delete(boards).where(boards.c.board_id == "a"))
        counts = await read_counts(connection)
        assert counts == await compute_counts(connection)
        assert {sort[1] for sort in counts} == {"", "b"}


async def test_counts_ignore_rolled_back_changes(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as connection:
            await board_rows(connection)
            await make(connection, range(5))
            raise ZeroDivisionError
    async with database.read() as connection:
        assert await read_counts(connection) == {}


@pytest.mark.sqlite("reads SQLite's text index")
async def test_the_text_index_grows_in_blocks_and_drops_deleted_rows(database: Database) -> None:
    async with database.write() as connection:
        await board_rows(connection)
        await make(connection, range(127))
        assert await in_index(connection, '"ure"') == set()
        await make(connection, range(127, 300))
        assert await in_index(connection, '"ure"') == set(range(1, 257))
        await connection.execute(delete(images).where(images.c.image_id <= 10))
        await connection.execute(update(images).where(images.c.image_id == 11).values(metadata='{"a": "zebra"}'))
        await connection.execute(update(images).where(images.c.image_id == 290).values(metadata='{"a": "zebra"}'))
        assert await in_index(connection, '"ure"') == set(range(12, 257))
        assert await in_index(connection, '"zeb"') == {11}
        # Numbers are never used again, so what the index says of one stays true.
        await connection.execute(delete(images))
        assert await in_index(connection, '"ure"') == set()
        await make(connection, range(1))
        assert (await connection.execute(select(images.c.image_id))).scalar_one() == 301
