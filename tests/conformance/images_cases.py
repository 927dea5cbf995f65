"""Images, videos, galleries, boards, moves between subfolders."""

from collections.abc import Iterator
from typing import Any

from invokeclone.boards import store as boards
from invokeclone.boards import virtual
from invokeclone.boards.schemas import BoardChanges, BoardRecordOrderBy
from invokeclone.images import access, reservations, store
from invokeclone.images.gallery import store as gallery
from invokeclone.images.lists import deep_pages, name_lists, search
from invokeclone.images.media_kinds import IMAGES, VIDEOS
from invokeclone.images.relocation import store as moves
from invokeclone.images.relocation.store import Move
from invokeclone.images.schemas import ImageFilter, ImageLocation, ImageRecordChanges, NewImage
from invokeclone.images.videos.schemas import NewVideo
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.sql.prepared_statements import PreparedStatement
from invokeclone.tables import boards as board_table
from invokeclone.tables import image_counts, images, session_queue, videos
from invokeclone.users.current import SYSTEM, User
from tests.conformance.cases import Calls, case

ANN, BOB, EVE = User(user_id="ann"), User(user_id="bob"), User(user_id="eve", is_admin=True)
TEXTS = (
    '{"prompt": "A red Zebra"}',
    '{"prompt": "рыжий КОТ"}',
    '{"prompt": "\\u0440\\u044b\\u0436\\u0438\\u0439"}',
    None,
    '{"a": "100%_x\\"y"}',
)


def at(number: int) -> str:
    """Return a time; every third one is that of its predecessor."""
    return f"2026-01-{number // 9 + 1:02} 10:00:{number - (number % 3 == 2):02}.000"


def image(number: int) -> dict[str, Any]:
    return {
        "image_name": f"{number * 7 % 31:02}é.png", "image_origin": ("internal", "external")[number % 2],
        "image_category": ("general", "general", "user", "mask")[number % 4], "width": 8, "height": number + 1,
        "is_intermediate": number % 5 == 4, "starred": number % 6 == 1, "board_id": (None, "b1", "b2")[number % 3],
        "user_id": ("system", "ann", "bob")[number // 2 % 3], "metadata": TEXTS[number % 5], "created_at": at(number),
    }  # fmt: skip


def video(number: int) -> dict[str, Any]:
    row = {name.replace("image_", "video_"): value for name, value in image(number).items()} | {
        "duration": 1.5,
        "fps": 24.0,
    }
    return row | {"board_id": (None, "b1")[number % 2]}


async def fill(run: Calls, number: int = 27) -> None:
    await run.insert(
        board_table,
        {"board_id": "b1", "board_name": "Zoo", "user_id": "ann", "created_at": "2026-01-01 00:00:00.000"},
        {"board_id": "b2", "board_name": "apes", "user_id": "bob", "board_visibility": "public"},
        {"board_id": "b3", "board_name": "Éclair", "archived": True, "board_visibility": "shared"},
    )
    await run.insert(images, *map(image, range(number)))
    await run.insert(videos, *map(video, range(0, number, 4)))


def filters() -> Iterator[ImageFilter]:
    chosen: list[dict[str, Any]] = [
        {},
        {"is_intermediate": False},
        {"is_intermediate": True, "origin": "internal"},
        {"is_intermediate": False, "categories": ("general",)},
        {"is_intermediate": False, "categories": ("user", "mask")},
        {"categories": ("user",), "board_id": "none"},
        {"is_intermediate": False, "board_id": "none"},
        {"board_id": "b1"},
        {"owner": "ann"},
        {"owner": "bob", "board_id": "b2", "is_intermediate": False},
        {"created_date": "2026-01-02"},
        {"created_date": "2026-01-02", "is_intermediate": False, "categories": ("general",)},
    ]
    for fields in chosen:
        yield ImageFilter(**fields)
        yield ImageFilter(**fields, starred_first=False)
        if len(fields) < 2:
            yield ImageFilter(**fields, order_dir=SQLiteDirection.Ascending)
            yield ImageFilter(**fields, order_dir=SQLiteDirection.Ascending, starred_first=False)


@case
async def lists(run: Calls) -> None:
    await fill(run)
    for image_filter in filters():
        for kind in (IMAGES, VIDEOS):
            total = await run(store.count, image_filter, kind)
            await run(store.names_json, image_filter, kind)
            await run(store.page_json, image_filter, 2, 3, kind)
            await run(store.page_json, image_filter, max(total - 3, 0), 5, kind)
        await run(store.count_starred, image_filter, (IMAGES, VIDEOS))
        await run(store.page_part, image_filter, (IMAGES,), 1, 2, 9)
        await run(gallery.names_json, image_filter, "names", with_kinds=True)
        await run(gallery.page_json, image_filter, 1, 4)
    await run(store.page_json, ImageFilter(), 2**62, 10)
    await run(store.count_intermediates)
    await run(store.count_intermediates, "ann")
    statement = PreparedStatement(store.all_names(ImageFilter(board_id="b2")))
    await run(name_lists.document, statement, "image_names", 3)


@case
async def deep(run: Calls) -> None:
    await fill(run)
    for starred_first in (True, False):
        for order_dir in SQLiteDirection:
            for categories in (None, ("general",)):
                image_filter = ImageFilter(
                    is_intermediate=False, starred_first=starred_first, order_dir=order_dir, categories=categories
                )
                total = await store.count(run.database, image_filter)
                starred = await store.count_starred(run.database, image_filter, (IMAGES,))
                part = deep_pages.part_from_nearer_end(total, total // 2, 3)
                await run(deep_pages.skip_to_day, image_filter, (IMAGES,), part, of=total, starred=starred)


@case
async def searches(run: Calls) -> None:
    await fill(run)
    terms = (
        "zebra",
        "ZEB",
        "рыж",
        "РЫЖИЙ",
        "кот",
        "K",
        "100%",
        "_x",
        'x"y',
        "2026-01-0",
        "%",
        "é",
        "q" * 200,
        "e_ra",
        "%%%",
    )
    for number, term in enumerate(terms):
        for fields in ({}, ({"is_intermediate": False, "owner": "ann"}, {"board_id": "b1"})[number % 2]):
            asked = ImageFilter(search_term=term, **fields)
            image_filter = await search.with_text_query(run.database, asked)
            for kind in (IMAGES, VIDEOS):
                await run(store.count, image_filter, kind)
                await run(store.names_json, image_filter, kind)
            await run(store.page_json, image_filter, 0, 5)
            await run(gallery.page_json, image_filter, 0, 5)
    run.record(search.with_text_query, (await search.with_text_query(run.database, ImageFilter())).text_query)
    async with run.database.write() as connection:
        await connection.execute(images.update().where(images.c.image_id == 1).values(metadata='{"prompt": "okapi"}'))
        await connection.execute(images.delete().where(images.c.image_id == 6))
    for term in ("okapi", "zebra"):
        await run(store.names_json, await search.with_text_query(run.database, ImageFilter(search_term=term)))


@case
async def records(run: Calls) -> None:
    await fill(run, 6)
    new = NewImage(
        image_name="n.png",
        image_origin="internal",
        image_category="general",
        width=3,
        height=4,
        board_id="b1",
        user_id="ann",
    )
    await run(store.add, IMAGES, new)
    foreign = new.model_copy(
        update={"image_name": "o.png", "user_id": "bob", "metadata": '{"a": 1}', "has_workflow": True}
    )
    await run(store.add, IMAGES, foreign)
    await run(store.add, IMAGES, foreign)
    clip = NewVideo(
        video_name="v.mp4", video_origin="internal", video_category="general", width=3, height=4, duration=0.5
    )
    await run(store.add, VIDEOS, clip)
    for name in ("n.png", "o.png", "none.png"):
        await run(store.get, name)
        await run(store.get_json, IMAGES, name)
        await run(store.fields, IMAGES, name)
        await run(store.get_location, name)
        await run(store.metadata_json, name)
    await run(store.metadata_json, "v.mp4", VIDEOS)
    names = ["o.png", "none.png", "n.png", "o.png"]
    await run(store.existing, IMAGES, names)
    await run(store.by_names_json, names)
    rows = sorted(await store.by_names(run.database, IMAGES, names), key=lambda row: str(row["image_name"]))
    run.record(store.by_names, rows)
    for board_id in ("b1", "b9"):
        await run(store.board_exists, board_id)
        await run(store.board_name, board_id)
    await run(store.image_locations, ["o.png", "none.png"])
    async with run.database.read() as connection:
        run.record(
            store.image_locations,
            sorted((await store.image_locations(connection, on=ImageFilter(board_id="b1"))).items()),
        )
    await run(store.update_image, "n.png", ImageRecordChanges(starred=True, is_intermediate=True, session_id="s"))
    await run(store.update_image, "none.png", ImageRecordChanges(starred=True))
    await run(store.change, VIDEOS, "v.mp4", ImageRecordChanges(starred=True))


@case
async def bulk_changes(run: Calls) -> None:
    await fill(run, 12)
    names = sorted(str(image(number)["image_name"]) for number in range(6))

    async def changed(function: Any, *arguments: Any, **options: Any) -> None:
        async with run.database.write() as connection:
            run.record(function, sorted(await function(connection, *arguments, **options), key=str))

    await changed(store.set_starred, names, starred=True)
    await changed(store.move_to_board, names[:3], "b2")
    await changed(store.move_to_board, names[2:], None)
    for selection in (
        store.select_named([*names[:2], "none.png"]),
        store.select_on_board("b1", "ann"),
        store.select_on_board(None, kind=VIDEOS),
        store.select_on_board("b2"),
        store.select_intermediates(),
    ):
        await changed(store.list_locations, selection)
        await changed(store.delete_selection, selection)
    await run(store.names_json, ImageFilter())
    async with run.database.read() as connection:
        counted = await connection.execute(image_counts.select().where(image_counts.c.number > 0))
        run.record(store.count, sorted(tuple(row) for row in counted))


@case
async def rights_to_images(run: Calls) -> None:
    await fill(run, 6)
    names = [*(str(image(number)["image_name"]) for number in range(6)), "none.png"]
    for user in (ANN, BOB, EVE):
        for name in names:
            await run(access.require_readable, user, IMAGES, name)
            await run(access.require_changeable, user, IMAGES, name)
        for divide in (access.readable, access.changeable, access.movable):
            await run(divide, user, IMAGES, names)
        for board_id in ("b1", "b2", "b3", "b9"):
            await run(access.list_owner, user, board_id)
            for require in (access.require_board_readable, access.require_board_fillable, access.require_board_owned):
                await run(require, user, board_id)
        await run(access.list_owner, user, None)


@case
async def board_rows(run: Calls) -> None:
    await fill(run)
    await run(boards.create, "New", "ann")
    async with run.database.write() as connection:
        await connection.execute(board_table.delete().where(board_table.c.board_name == "New"))
    for user in (SYSTEM, ANN, BOB, EVE):
        for order in BoardRecordOrderBy:
            for direction in SQLiteDirection:
                await run(boards.list_all_json, order, direction, include_archived=user is BOB, user=user)
                await run(boards.page, 1, 2, order, direction, include_archived=True, user=user)
        async with run.database.read() as connection:
            listed = await boards.list_all(connection, user=user)
        run.record(boards.list_all, sorted(listed, key=lambda board: board.board_id))
    await run(boards.page, 2**40, 10)
    for board_id in ("b1", "b9"):
        await run(boards.get, board_id)
        await run(boards.require, board_id)
        await run(boards.image_names_json, board_id, is_intermediate=False)
    async with run.database.read() as connection:
        run.record(boards.names, sorted(await boards.names(connection, "b1", IMAGES)))
    await run(boards.image_names, "none", ["general", "user"], owner="ann")
    await run(boards.image_names_json, "b1", ["general"])
    await run(
        boards.update_board,
        "b1",
        BoardChanges(board_name="ä", archived=True, cover_image_name="x", board_visibility="public"),
    )
    await run(boards.update_board, "b9", BoardChanges(archived=True))
    await run(boards.delete_board, "b1")
    await run(store.count, ImageFilter(board_id="none"))
    await run(boards.get, "b1")


@case
async def days(run: Calls) -> None:
    await fill(run)
    for owner in (None, "ann", "nobody"):
        await run(virtual.list_by_date, owner)
    async with run.database.write() as connection:
        await connection.execute(
            images.update().where(images.c.image_id < 9).values(image_category="user", user_id="ann")
        )
        await connection.execute(images.delete().where(images.c.image_id.between(9, 12)))
    await run(virtual.list_by_date, None)
    await run(virtual.list_by_date, "ann")


@case
async def relocation(run: Calls) -> None:
    await fill(run, 6)
    for strategy in ("date", "type", "hash", "flat"):
        await run(moves.count_misplaced, strategy)
        await run(moves.list_misplaced, strategy, 0, 2)
        await run(moves.list_misplaced, strategy, 2, 9)
    names = [str(image(number)["image_name"]) for number in range(2)]
    await run(
        moves.write_journal, [Move(names[0], "", "a"), Move("gone.png", "", "b"), Move(names[1], "elsewhere", "c")]
    )
    async with run.database.read() as connection:
        run.record(moves.read_journal, sorted(await moves.read_journal(connection), key=str))
    await run(moves.relocate, [*names, "gone.png"])
    for name in names:
        await run(store.get_location, name)
    await run(moves.correct_subfolder, names[1], "", "z")
    await run(moves.correct_subfolder, names[1], "", "y")
    await run(store.get_location, names[1])
    await run(moves.write_journal, [])
    await run(moves.read_journal)
    await run(moves.latest_job)
    await run(moves.add_job)
    job = await run(moves.add_job)
    await run(moves.set_state, job, "moving")
    await run(moves.latest_job)
    await run(moves.give_up, "why")
    await run(moves.latest_job)
    await run(moves.is_queue_busy)
    await run.insert(session_queue, {"queue_id": "q", "batch_id": "b", "session_id": "s", "session": ""})
    await run(moves.is_queue_busy)
    for server_id in "ab":
        await run(moves.hold_queue, server_id)
        await run(moves.holder)
    for server_id in "ab":
        await run(moves.release_queue, server_id)
        await run(moves.holder)


@case
async def image_reservations(run: Calls) -> None:
    first, second = ImageLocation("a.png", ""), ImageLocation("b%_é.png", "2026/01")
    await run(reservations.reserve, "1", [first])
    await run(reservations.reserve, "2", [first, second])
    await run(reservations.list_reserved, "1")
    async with run.database.read() as connection:
        run.record(reservations.list_reserved, sorted(await reservations.list_reserved(connection)))
    await run(reservations.reserve, "2", [second])
    await run(reservations.release, "1")
    await run(reservations.release, "none")
    await run(reservations.list_reserved, "1")
    await run(reservations.list_reserved)
    await run(moves.write_journal, [Move("a.png", "", "b")])
    await run(reservations.list_move_targets)
