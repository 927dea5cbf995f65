"""Copies of a whole storage: complete, verified, and continued where they ended."""

import os
from pathlib import Path
from typing import Any

import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage.addresses import AREAS, StorageNotUsable, open_storage
from invokeclone.kit.storage.copies import CopyNotVerified, CopyProgress, copy_all
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.protocol import ObjectStat, ObjectStorage
from invokeclone.kit.storage.s3 import S3Storage

LARGE = os.urandom(9 * 1024 * 1024)
OBJECTS = {f"images/{number}.png": b"%d" % number for number in range(40)} | {
    "images/thumbnails/x/1.webp": b"small",
    "style_presets/p.webp": b"preset",
    "workflow_thumbnails/w.webp": b"",
    "videos/v.mp4": LARGE,
}


@pytest.fixture(params=["local-s3", "s3-local", "local-local", "s3-s3"])
def storages(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> tuple[ObjectStorage, ObjectStorage]:
    def make(kind: str, name: str) -> ObjectStorage:
        if kind == "local":
            return LocalStorage(tmp_path / name) if name == "target" else open_storage(settings)
        s3 = request.getfixturevalue("s3_settings")
        return open_storage(s3.model_copy(update={"storage_url": f"{s3.storage_url}/{name}"}))

    source, target = request.param.split("-")
    return make(source, "source"), make(target, "target")


def contents(storage: ObjectStorage) -> dict[str, bytes]:
    return {stat.key: storage.get(stat.key) for area in AREAS for stat in storage.list(area)}


def fill(storage: ObjectStorage) -> None:
    for key, content in OBJECTS.items():
        storage.write(key, content)


def test_an_interrupted_copy_continues(storages: tuple[ObjectStorage, ObjectStorage]) -> None:
    source, target = storages
    fill(source)
    target.write("images/1.png", b"?")
    target.write("images/other.png", b"stays")
    seen: list[CopyProgress] = []

    def stop(progress: CopyProgress) -> None:
        seen.append(progress)
        if progress.copied == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_all(source, target, stop)
    rest = copy_all(source, target)
    assert rest.equal >= 10
    assert rest.copied + rest.equal == len(OBJECTS)
    assert contents(target) == OBJECTS | {"images/other.png": b"stays"}
    assert contents(source) == OBJECTS
    assert copy_all(source, target) == CopyProgress(equal=len(OBJECTS))
    assert [progress.copied for progress in seen] == sorted(progress.copied for progress in seen)


def test_a_copy_that_differs_is_written_again(storages: tuple[ObjectStorage, ObjectStorage]) -> None:
    source, target = storages
    source.write("images/a.png", b"right")
    target.write("images/a.png", b"wrong")
    assert copy_all(source, target) == CopyProgress(copied=1, copied_bytes=5)
    assert target.get("images/a.png") == b"right"


@pytest.mark.parametrize("is_right", [True, False])
def test_sums_that_are_no_md5_sums(
    settings: Settings, s3_settings: Settings, monkeypatch: pytest.MonkeyPatch, *, is_right: bool
) -> None:
    """Encrypted objects have other values of the same form: then the contents decide."""
    source, target = open_storage(settings), open_storage(s3_settings)
    source.write("images/a.png", b"right")
    target.write("images/a.png", b"right" if is_right else b"wrong")
    stat = S3Storage.stat
    monkeypatch.setattr(S3Storage, "stat", lambda self, key: stat(self, key)._replace(md5="0" * 32))
    assert copy_all(source, target) == (CopyProgress(equal=1) if is_right else CopyProgress(copied=1, copied_bytes=5))


def test_a_target_that_changes_what_is_written(settings: Settings, tmp_path: Path, monkeypatch: Any) -> None:
    source, target = open_storage(settings), LocalStorage(tmp_path / "target")
    source.write("images/a.png", b"right")
    write = LocalStorage.write
    monkeypatch.setattr(LocalStorage, "write", lambda self, key, data, **options: write(self, key, data[1:], **options))
    with pytest.raises(CopyNotVerified, match=r"target/images/a\.png differs from .*/images/a\.png after copying"):
        copy_all(source, target)


def test_objects_deleted_meanwhile_are_left_out(settings: Settings, tmp_path: Path) -> None:
    class Old(LocalStorage):
        def list(self, prefix: str) -> Any:
            for stat in super().list(prefix):
                yield stat
                yield ObjectStat(f"{stat.key}.gone", *stat[1:])

    source = Old(settings.outputs_path)
    source.write("images/a.png", b"a")
    target = LocalStorage(tmp_path / "target")
    assert copy_all(source, target) == CopyProgress(copied=1, missing=1, copied_bytes=1)
    assert contents(target) == {"images/a.png": b"a"}


def test_errors_end_the_copy(settings: Settings, s3_settings: Settings) -> None:
    source = open_storage(settings)
    source.write("images/a.png", b"a")
    target = open_storage(s3_settings.model_copy(update={"storage_url": "s3://missing"}))
    with pytest.raises(OSError, match="the bucket does not exist"):
        copy_all(source, target)
    with pytest.raises(StorageNotUsable, match="both the source and the target"):
        copy_all(source, source)
