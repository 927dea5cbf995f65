"""`invokeclone storage`: copies from a root's folders to another storage, and files without a record."""

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from invokeclone.cli.main import main
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.kit.storage.addresses import local_storage
from invokeclone.tables import style_presets, workflows
from tests.applications import sample_image


@pytest.fixture
def copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `invokeclone storage copy …`; return the exit code, what it wrote and its complaints."""

    def act(*arguments: str) -> tuple[int, str, str]:
        status = main(["storage", "copy", *arguments, "--root", str(tmp_path / "root")])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return act


def test_a_copy_may_be_repeated(copy: Any, tmp_path: Path) -> None:
    storage = local_storage(Settings(root=tmp_path / "root"))
    storage.write("images/a.png", b"12345")
    storage.write("style_presets/b.webp", b"b")
    there, back = f"file://{tmp_path}/there", f"file://{tmp_path}/back"
    assert copy("--to", there) == (0, f"2 files (0.0 MB) copied to {tmp_path}/there, 0 were there already\n", "")
    assert copy("--to", there) == (0, f"0 files (0.0 MB) copied to {tmp_path}/there, 2 were there already\n", "")
    assert copy("--from", there, "--to", back)[0] == 0
    assert (tmp_path / "back" / "style_presets" / "b.webp").read_bytes() == b"b"


def test_files_without_a_record_are_found_and_deleted(
    tmp_path: Path, migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(root=tmp_path / "root")
    settings.database_path.parent.mkdir(parents=True)
    shutil.copyfile(migrated, settings.database_path)

    async def save() -> str:
        """Store an image, a preset `p` and a workflow `w` with images, and a preset and a workflow without."""
        database = open_database(settings)
        async with database.write() as connection:
            texts = {"positive_prompt": "", "negative_prompt": "", "type": "user", "created_at": "x", "updated_at": "x"}
            presets: list[dict[str, Any]] = [{"id": "p", "image": "1"}, {"id": "plain", "image": None}]
            await connection.execute(insert(style_presets), [{"name": "n", **texts, **preset} for preset in presets])
            rows: list[dict[str, Any]] = [
                {"workflow_id": "w", "thumbnail": "1"},
                {"workflow_id": "plain", "thumbnail": None},
            ]
            texts = {
                "name": "n",
                "description": "",
                "tags": "",
                "category": "user",
                "workflow": "{}",
                "judged_by": "",
                "created_at": "x",
                "updated_at": "x",
            }
            await connection.execute(insert(workflows), [{**texts, "call_message": "", **row} for row in rows])
        image = await service.save(
            Resources(settings, database, Bus()),
            sample_image(),
            category=ImageCategory.GENERAL,
            origin=ResourceOrigin.INTERNAL,
        )
        await database.close()
        return image.image_name

    kept = Path(asyncio.run(save())).stem
    storage = local_storage(settings)
    orphans = {"images/sub/x.png", "images/thumbnails/x.webp", "videos/v.mp4", "videos/sidecars/v.json", ".probe/01"}
    orphans |= {f"{area}/{name}.webp" for area in ("style_presets", "workflow_thumbnails") for name in ("x", "plain")}
    orphans |= {"images/2026/.x.png.01234567.part", "style_presets/.p.webp.01234567.part"}
    others = {
        "style_presets/p.webp",
        "style_presets/notes.txt",
        "style_presets/mine/x.webp",
        "workflow_thumbnails/w.webp",
    }
    old = orphans | others | {f"images/{kept}.png", f"images/thumbnails/{kept}.webp"}
    new = {"images/new.png", "images/.new.png.01234567.part", "workflow_thumbnails/new.webp"}
    for key in {*orphans, *others, *new}:
        storage.write(key, b"x")
    for key in old:
        os.utime(storage.local_path(key), (time.time() - 90_000, time.time() - 90_000))
    arguments = ["storage", "orphans", "--root", str(settings.root)]
    for more in ([], ["--delete"]):
        assert main([*arguments, *more]) == 0
        assert set(capsys.readouterr().out.split()) == orphans
    assert main(arguments) == 0
    assert capsys.readouterr().out == ""
    assert all(storage.local_path(key).exists() != (key in orphans) for key in old | new)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("nowhere", "nowhere is not a storage address: use s3://BUCKET"),
        ("file:///dev/null/x", "the storage /dev/null/x cannot be used: File exists; check storage_url"),
    ],
)
def test_mistakes_are_one_line(copy: Any, address: str, complaint: str) -> None:
    status, out, complaints = copy("--to", address)
    assert (status, out) == (2, "")
    assert complaints.startswith(f"invokeclone: {complaint}")
    assert complaints.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["storage", "orphans", "--delete"], ["db", "copy", "--to", "postgresql://127.0.0.1:1/never-reached"]]
)
def test_a_database_that_does_not_exist_has_nothing_to_read(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one has no rows to copy, and no records: each file would be without one."""
    settings = Settings(root=tmp_path / "root")
    storage = local_storage(settings)
    storage.write("images/a.png", b"x")
    os.utime(storage.local_path("images/a.png"), (0, 0))
    assert main([*command, "--root", str(settings.root)]) == 2
    complaint = f"invokeclone: there is no database {settings.database_path}; check --root and db_dir\n"
    assert capsys.readouterr().err == complaint
    assert storage.local_path("images/a.png").exists()
    assert not settings.database_path.exists()
