"""`invokeclone db copy`: all rows of a database in another one, resumable, and refused where something would be lost."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from invokeclone.cli import db
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql import copy_database as copying
from invokeclone.kit.sql.copy_database import CopyRefused, copy_database
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.kit.sql.database_file import DatabaseUnusable
from invokeclone.queue import claims, counts, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.copying import PLAN
from invokeclone.tables import boards, day_counts, image_counts, images, metadata, session_queue, users

AT = "2026-01-02 03:04:05.678"


@pytest.fixture
async def filled(resources: Resources, make: Any) -> Database:
    """Fill a database with items, one of them ended, images on a board and an account."""
    if resources.database.dialect != "sqlite":
        pytest.skip("the source is SQLite")
    batch = Batch.model_validate(make.batch(runs=5, destination="d"))
    item_id = (await service.enqueue(resources, "default", batch)).item_ids[0]
    claimed = await claims.claim(resources, "cpu")
    assert claimed
    await claims.finish(resources, claimed.item_id, "completed", session_json=',"results":{}}')
    assert item_id
    async with resources.database.write() as connection:
        await connection.execute(insert(users).values(user_id="ann", email="a@b", created_at=AT, updated_at=AT))
        await connection.execute(
            insert(boards).values(
                board_id="b", board_name="Ü", user_id="ann", created_at=AT, updated_at=AT, archived=True
            )
        )
        rows = [
            {
                "image_name": f"{number}.png",
                "image_origin": "internal",
                "image_category": "general",
                "width": 8,
                "height": 8,
                "created_at": AT,
                "updated_at": AT,
                "starred": number % 2 == 1,
                "board_id": "b" if number % 3 else None,
                "metadata": json.dumps({"positive_prompt": f"Zebra \u00e4 {number}"}),
            }
            for number in range(7)
        ]
        await connection.execute(insert(images), rows)
    return resources.database


@pytest.fixture
async def target(settings: Settings, postgres: Any) -> AsyncIterator[Database]:
    database = open_database(
        settings.model_copy(update={"database_url": await asyncio.to_thread(postgres.new_database)})
    )
    yield database
    await database.close()


async def rows(database: Database, table: Any) -> list[Any]:
    columns = [column for column in table.columns if column.computed is None]
    async with database.read() as connection:
        return [tuple(row) for row in await connection.execute(select(*columns).order_by(*table.primary_key))]


async def test_everything_is_copied_to_postgresql(filled: Database, target: Database, resources: Resources) -> None:
    numbers = await copy_database(filled, target, PLAN)
    assert (numbers["session_queue"], numbers["images"], numbers["users"]) == (5, 7, 2)
    for table in metadata.sorted_tables:
        if table.name not in ("app_state", "queue_counts", "session_queue"):
            assert await rows(target, table) == await rows(filled, table), table.name
    assert await rows(target, image_counts)
    assert await rows(target, day_counts)
    before, after = [await counts.of_queue(database, "default") for database in (filled, target)]
    assert before == after
    assert (after.queue.pending, after.queue.completed) == (4, 1)
    items = [await store.get_many_json(database, "default", range(1, 6)) for database in (filled, target)]
    assert json.loads(items[0]) == json.loads(items[1])

    moved = Resources(resources.settings, target, resources.events)
    claimed = await claims.claim(moved, "cpu")
    assert claimed
    assert claimed.item_id == 2
    await claims.finish(moved, claimed.item_id, "completed", session_json=',"results":{}}')
    added = await service.enqueue(
        moved, "default", Batch.model_validate({"graph": json.loads(claimed.session)["graph"]})
    )
    assert added.item_ids == [6]


async def test_an_interrupted_copy_goes_on(filled: Database, target: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "ROWS_PER_PART", 2)

    def stop(table: str, number: int) -> None:
        if (table, number) == ("images", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await copy_database(filled, target, PLAN, stop)
    seen: list[tuple[str, int]] = []
    await copy_database(filled, target, PLAN, lambda *progress: seen.append(progress))
    assert [number for table, number in seen if table == "images"] == [6, 7]
    assert await rows(target, images) == await rows(filled, images)
    assert await rows(target, image_counts) == await rows(filled, image_counts)


async def test_a_target_with_other_data_is_refused_unchanged(filled: Database, target: Database) -> None:
    async with target.write() as connection:
        await connection.execute(insert(boards).values(board_id="x", board_name="x", created_at=AT, updated_at=AT))
    with pytest.raises(CopyRefused, match="has 1 rows in boards: copy to a new, empty database"):
        await copy_database(filled, target, PLAN)
    assert len(await rows(target, boards)) == 1


async def test_a_source_that_changes_meanwhile_is_detected(filled: Database, target: Database) -> None:
    changed: list[str] = []

    async def rename() -> None:
        async with filled.write() as connection:
            await connection.execute(update(boards).values(board_name="renamed"))

    def change(table: str, _number: int) -> None:
        if table == "images" and not changed:
            changed.append(table)
            tasks.append(asyncio.ensure_future(rename()))

    tasks: list[Any] = []
    with pytest.raises(CopyRefused, match=r"differs from .* in boards"):
        await copy_database(filled, target, PLAN, change)
    await asyncio.gather(*tasks)


def test_the_command_copies_and_names_what_is_wrong(
    settings: Settings,
    laid_out: None,
    postgres: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        db, "settings_for", lambda _arguments, **_options: settings.model_copy(update={"database_url": None})
    )
    address = postgres.new_database(migrated=False)
    assert db.run(argparse.Namespace(action="copy", to=address)) == 0
    assert "rows copied and compared: set database_url to postgresql://" in capsys.readouterr().out
    assert "PASSWORD" not in address

    for wrong, reason in (
        ("mysql://localhost/x", "only postgresql://"),
        (postgres.address("missing"), "has no such database: create it"),
        ("postgresql://postgres@127.0.0.1:1/x", "cannot be reached .*: start PostgreSQL"),
    ):
        with pytest.raises(DatabaseUnusable, match=reason):
            db.run(argparse.Namespace(action="copy", to=wrong))


async def test_counts_of_an_empty_queue_are_none(resources: Resources) -> None:
    async with resources.database.write() as connection:
        await PLAN.finish(connection)
        assert await connection.scalar(select(func.count()).select_from(session_queue)) == 0
