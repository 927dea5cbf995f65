"""What nodes save, the order of files and records, and the plans of the list statements."""

import json
import os
import re
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import Select, insert
from sqlalchemy.dialects import sqlite

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import files, service, store
from invokeclone.images.encoding import png
from invokeclone.images.errors import ImageNotFound
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.resources import Resources
from invokeclone.tables import images
from tests.applications import decode_image, sample_image


async def save_image(resources: Resources, image: Image.Image | None = None, **options):
    return await service.save(
        resources, image or sample_image(), category=ImageCategory.GENERAL, origin=ResourceOrigin.INTERNAL, **options
    )


async def test_save_stores_node_fields_and_texts(resources: Resources) -> None:
    image = await save_image(
        resources,
        is_intermediate=True,
        session_id="s",
        node_id="n",
        metadata='{"a": "é"}',
        workflow="{}",
        graph='{"é": "日"}',
    )
    assert image == await service.get(resources, image.image_name)
    assert (image.session_id, image.node_id, image.is_intermediate, image.has_workflow) == ("s", "n", True, True)
    assert image.image_origin == "internal"
    stored = decode_image((await service.file(resources, image.image_name)).read())
    assert stored.tobytes() == sample_image().tobytes()
    assert stored.info == {png.METADATA: '{"a": "é"}', png.WORKFLOW: "{}", png.GRAPH: '{"é": "日"}'}
    texts = await service.texts(resources, image.image_name)
    assert (texts.workflow, texts.graph) == ("{}", '{"é": "日"}')
    assert json.loads(await service.metadata_json(resources, image.image_name)) == {"a": "é"}


async def test_saving_to_a_missing_board_saves_without_board(resources: Resources) -> None:
    image = await save_image(resources, board_id="gone")
    assert image.board_id is None


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
@pytest.mark.parametrize("level", [1, 6])
def test_every_image_mode_round_trips(mode: str, level: int) -> None:
    image = sample_image("L").convert(mode) if mode != "PA" else sample_image("P").convert("PA")
    decoded = decode_image(png.encode(image, level, {png.METADATA: "{}"}))
    assert decoded.size == image.size
    assert decoded.info[png.METADATA] == "{}"
    if mode in {"1", "L", "LA", "P", "RGB", "RGBA"}:
        assert decoded.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()
    assert decode_image(files.thumbnail(image)).mode in {"RGB", "RGBA"}


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (257, 255)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_survive_the_fast_encoder(mode: str, size: tuple[int, int]) -> None:
    noise = Image.frombytes(mode, size, os.urandom(size[0] * size[1] * len(mode)))
    assert decode_image(png.encode(noise, 1, {})).tobytes() == noise.tobytes()
    copied = png.copy_with_texts(png.encode(noise, 6, {"Comment": "x"}), {png.GRAPH: "{}"})
    assert copied is not None
    assert decode_image(copied).tobytes() == noise.tobytes()
    assert decode_image(copied).info == {png.GRAPH: "{}"}


async def test_files_are_written_before_the_record(resources: Resources) -> None:
    """A record that can't be made takes its files with it; the other way round there would be a record without files."""

    class Broken(RuntimeError):
        pass

    snapshots: list[list[Path]] = []

    class Failing:
        read = resources.database.read

        def write(self):
            if snapshots:
                return resources.database.write()
            snapshots.append([path for path in resources.settings.outputs_path.rglob("*") if path.is_file()])
            raise Broken

    with pytest.raises(Broken):
        await save_image(Resources(resources.settings, Failing(), resources.events))
    assert len(snapshots[0]) == 2
    assert [path for path in resources.settings.outputs_path.rglob("*") if path.is_file()] == []


async def test_the_record_is_deleted_before_the_files(resources: Resources) -> None:
    image = await save_image(resources)
    path = (await service.file(resources, image.image_name)).path
    assert path is not None
    path.unlink()
    path.mkdir()  # can't be unlinked
    await service.delete(resources, image.image_name)
    with pytest.raises(ImageNotFound):
        await service.get(resources, image.image_name)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("flat", ""), ("date", datetime.now().astimezone().strftime("%Y/%m/%d")), ("type", "general"), ("hash", None)],
)
async def test_subfolders(resources: Resources, strategy: str, expected: str | None) -> None:
    settings = Settings(root=resources.settings.root, image_subfolder_strategy=strategy)
    elsewhere = Resources(settings, resources.database, resources.events)
    image = await save_image(elsewhere)
    subfolder = image.image_name[:2] if expected is None else expected
    assert image.image_subfolder == subfolder
    assert (settings.outputs_path / "images" / subfolder / image.image_name).is_file()
    small = settings.outputs_path / "images" / "thumbnails" / subfolder / f"{image.image_name[:-4]}.webp"
    assert small.is_file()
    # Whatever the strategy is later, the record knows where its files are.
    assert (await service.file(resources, image.image_name)).exists()
    await service.delete(resources, image.image_name)
    assert not small.exists()


def test_intermediates_go_to_the_intermediate_subfolder() -> None:
    assert files.subfolder("type", "x.png", ImageCategory.MASK, is_intermediate=True) == "intermediate"


async def plan(resources: Resources, statement: Select) -> str:
    text = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    async with resources.database.read() as connection:
        rows = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")).all()
    return " | ".join(row[3] for row in rows)


GENERAL = (ImageCategory.GENERAL,)
ASSETS = (ImageCategory.MASK, ImageCategory.CONTROL, ImageCategory.USER, ImageCategory.OTHER)


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (ImageFilter(), "ix_images_starred"),
        (ImageFilter(is_intermediate=False), "ix_images_gallery"),
        (ImageFilter(is_intermediate=False, categories=GENERAL), "ix_images_gallery"),
        (ImageFilter(is_intermediate=False, categories=ASSETS), "ix_images_assets"),
        (ImageFilter(is_intermediate=False, categories=GENERAL, board_id="none"), "ix_images_board"),
        (ImageFilter(is_intermediate=False, categories=ASSETS, board_id="b"), "ix_images_board"),
        (ImageFilter(is_intermediate=False, categories=GENERAL, starred_first=False), "ix_images_newest"),
        (
            ImageFilter(is_intermediate=False, starred_first=False, order_dir=SQLiteDirection.Ascending),
            "ix_images_newest",
        ),
    ],
)
async def test_lists_use_one_index_without_sorting(resources: Resources, wanted: ImageFilter, index: str) -> None:
    for statement in (store.page_names(wanted).params(skip=500, take=100), store.all_names(wanted)):
        query_plan = await plan(resources, statement)
        assert re.search(rf"USING COVERING INDEX {index}\b", query_plan), query_plan
        assert "TEMP B-TREE" not in query_plan
    # Nor does counting read images at all.
    assert await plan(resources, store.count_statement(wanted)) == "SCAN image_counts"


async def test_long_lists_with_equal_timestamps_are_ordered(resources: Resources) -> None:
    rows = [
        {
            "image_name": f"{number:05}.png", "image_origin": "internal", "image_category": "general", "width": 1, "height": 1,
            "starred": number % 7 == 0, "created_at": f"2026-01-01 00:00:{number % 50:02}.000", "updated_at": "x",
        }
        for number in range(3000)
    ]  # fmt: skip
    async with resources.database.write() as connection:
        await connection.execute(insert(images), rows)
        listed = json.loads(b"".join(await store.names_json(connection, ImageFilter())))["image_names"]
        pages = [
            item["image_name"]
            for offset in range(0, 3000, 250)
            for item in json.loads(await store.page_json(connection, ImageFilter(), offset, 250))["items"]
        ]
    expected = [
        row["image_name"]
        for row in sorted(rows, key=lambda r: (r["starred"], r["created_at"], r["image_name"]), reverse=True)
    ]
    assert listed == pages == expected
