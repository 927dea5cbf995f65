"""Nodes whose images are in a bucket: saved, read, and named by the path of a local copy."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.worker.interfaces.context import Context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.local_copies import LocalCopies
from tests.s3_server import S3Service
from tests.worker.conftest import Ask


@pytest.fixture
def resources(s3_settings: Settings, database: Database, events: Any) -> Resources:
    return Resources(s3_settings, database, events)


async def test_images_of_nodes(
    ask: Ask, tools: Tools, settings: Settings, s3: S3Service, bucket: str, tmp_path: Path
) -> None:
    def use(context: Context) -> tuple[str, bytes, Path, Path, Path]:
        name = context.images.save(Image.new("RGB", (12, 10), "blue")).image_name
        tools.images.forget([name])
        paths = [context.images.get_path(name), context.images.get_path(name), context.images.get_path(name, True)]
        return name, context.images.get_pil(name).tobytes(), *paths

    name, pixels, path, again, thumbnail = await ask(use)
    assert pixels == Image.new("RGB", (12, 10), "blue").tobytes()
    stem = name.removesuffix(".png")
    assert s3.keys(bucket) == {f"some/root/images/{name}", f"some/root/images/thumbnails/{stem}.webp"}
    assert path == again
    for copy, kind in ((path, "PNG"), (thumbnail, "WEBP")):
        assert copy.is_relative_to(tmp_path / "tensors")
        with Image.open(copy) as image:
            assert (image.size, image.format) == ((12, 10), kind)
    tools.tensors.close()
    assert not path.exists()
    assert [path for path in settings.outputs_path.rglob("*") if path.is_file()] == []


class _Bucket(LocalStorage):
    """A storage that does not say where its files are."""

    def local_path(self, key: str) -> Any:
        return None


def test_the_oldest_copies_are_removed(tmp_path: Path) -> None:
    for number in range(4):
        LocalStorage(tmp_path / "bucket").write(f"images/{number}.png", b"12345")
    reads: list[str] = []

    class Counted(StoredFile):
        def fetch(self, target: Path) -> None:
            reads.append(self.name)
            target.write_bytes((tmp_path / "bucket" / self.key).read_bytes())

    copies = LocalCopies(tmp_path / "copies", budget=11)
    files = [Counted(_Bucket(tmp_path / "bucket"), f"images/{number}.png") for number in range(4)]
    paths = [copies.path(files[number]) for number in (0, 1, 0, 2)]
    assert reads == ["0.png", "1.png", "2.png"]
    assert [path.exists() for path in paths] == [True, False, True, True]
    paths[0].unlink()  # by a node
    assert copies.path(files[0]).read_bytes() == b"12345"
    assert reads == ["0.png", "1.png", "2.png", "0.png"]
    assert LocalCopies(tmp_path, budget=1).path(files[3]).exists()
