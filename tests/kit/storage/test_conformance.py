"""What every storage does: the same cases for a local folder and for a bucket of an S3 service."""

import os
import threading
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage.addresses import open_storage
from invokeclone.kit.storage.protocol import ObjectPart, ObjectStorage, StoredFile


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, settings: Settings) -> ObjectStorage:
    return open_storage(request.getfixturevalue("s3_settings") if request.param == "s3" else settings)


def keys(storage: ObjectStorage, prefix: str = "images") -> list[str]:
    return sorted(stat.key for stat in storage.list(prefix))


def test_an_object_is_written_once(storage: ObjectStorage) -> None:
    storage.write("images/a.png", b"first")
    with pytest.raises(FileExistsError):
        storage.write("images/a.png", b"other")
    assert storage.get("images/a.png") == b"first"
    storage.write("images/a.png", b"replaced", replace=True)
    storage.write("images/b.png", b"new", replace=True)
    assert (storage.get("images/a.png"), storage.get("images/b.png")) == (b"replaced", b"new")
    assert keys(storage) == ["images/a.png", "images/b.png"]


def test_one_of_several_writers_succeeds(storage: ObjectStorage) -> None:
    ready, results = threading.Barrier(4), dict[bytes, bool]()

    def write(content: bytes) -> None:
        ready.wait()
        try:
            storage.write("images/a.png", content)
            results[content] = True
        except FileExistsError:
            results[content] = False

    writers = [threading.Thread(target=write, args=(b"%d" % number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(results.values()) == [False, False, False, True]
    assert results[storage.get("images/a.png")]


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(100_000)], ids=len)
def test_content_is_read_whole_and_in_pieces(storage: ObjectStorage, content: bytes) -> None:
    storage.write("images/2026/01/ä b%20?#.png", content)
    file = StoredFile(storage, "images/2026/01/ä b%20?#.png")
    assert file.read() == content
    assert b"".join(storage.chunks(file.key, 999)) == content
    assert all(len(piece) <= 999 for piece in storage.chunks(file.key, 999))
    assert file.stat().size == len(content)
    assert abs(datetime.now(UTC) - file.stat().modified) < timedelta(minutes=5)
    assert keys(storage) == [file.key]
    assert file.name == "ä b%20?#.png"


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 4, b"0123"),
        (2, 3, b"2"),
        (8, 99, b"89"),
        (10, 12, b""),
        (99, 100, b""),
        (10**18, 10**18 + 5, b""),
        (5, 5, b""),
    ],
)
def test_ranges_end_with_the_object(storage: ObjectStorage, start: int, end: int, expected: bytes) -> None:
    storage.write("videos/a.mp4", b"0123456789")
    assert storage.get_range("videos/a.mp4", start, end) == ObjectPart(expected, 10)


@pytest.mark.parametrize("key", ["images/a.png", "images/none/a.png", "images/file.png/a.png"])
@pytest.mark.parametrize(
    "read",
    [
        lambda storage, key: storage.get(key),
        lambda storage, key: storage.get_range(key, 0, 5),
        lambda storage, key: storage.get_range(key, 5, 5),
        lambda storage, key: storage.stat(key),
        lambda storage, key: list(storage.chunks(key)),
        lambda storage, key: storage.copy(key, "images/copy.png"),
    ],
)
def test_a_missing_object_is_reported(
    storage: ObjectStorage, read: Callable[[ObjectStorage, str], object], key: str
) -> None:
    storage.write("images/file.png", b"x")
    with pytest.raises(FileNotFoundError):
        read(storage, key)
    assert not StoredFile(storage, key).exists()
    assert keys(storage) == ["images/file.png"]


def test_objects_are_deleted_whether_they_exist_or_not(storage: ObjectStorage) -> None:
    names = [f"images/{number}.png" for number in range(1, 6)]
    for name in names:
        storage.write(name, b"x")
    assert storage.delete([*names[:4], "images/none.png", "images/no/folder.png", f"{names[4]}/below.png"]) == {}
    assert storage.delete([]) == {}
    assert keys(storage) == names[4:]


def test_copies_replace_and_outlive_their_source(storage: ObjectStorage) -> None:
    storage.write("images/a.png", b"a")
    storage.write("images/old.png", b"old")
    storage.copy("images/a.png", "images/sub/b.png")
    storage.copy("images/a.png", "images/old.png")
    storage.copy("images/sub/b.png", "images/sub/b.png")
    storage.delete(["images/a.png"])
    assert (storage.get("images/sub/b.png"), storage.get("images/old.png")) == (b"a", b"a")
    assert keys(storage) == ["images/old.png", "images/sub/b.png"]


def test_lists_have_whole_components(storage: ObjectStorage) -> None:
    for key in ("images/a.png", "images/thumbnails/a.webp", "images2/b.png", "style_presets/c.webp"):
        storage.write(key, b"x")
    assert keys(storage) == ["images/a.png", "images/thumbnails/a.webp"]
    assert keys(storage, "images/thumbnails") == ["images/thumbnails/a.webp"]
    assert keys(storage, "style_presets") == ["style_presets/c.webp"]
    assert keys(storage, "none") == []


@pytest.mark.parametrize("size", [5, 12 * 1024 * 1024], ids=["small", "large"])
def test_a_file_is_moved_into_the_storage(storage: ObjectStorage, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    for replace in (False, True):
        part = tmp_path / "x.part"
        part.write_bytes(content[::-1] if replace else content)
        storage.write_file("videos/a.mp4", part, replace=replace)
        assert not part.exists()
    part.write_bytes(b"0")
    with pytest.raises(FileExistsError):
        storage.write_file("videos/a.mp4", part)
    assert storage.get("videos/a.mp4") == content[::-1]
    StoredFile(storage, "videos/a.mp4").fetch(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content[::-1]


def test_a_fetched_file_is_complete_or_absent(
    storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("videos/a.mp4", b"x")
    with pytest.raises(FileNotFoundError):
        StoredFile(storage, "videos/none.mp4").fetch(tmp_path / "copy")
    assert list(tmp_path.glob("copy*")) == []
    (tmp_path / "copy").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        StoredFile(storage, "videos/a.mp4").fetch(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"other"


def test_a_presigned_url_lends_one_object(storage: ObjectStorage) -> None:
    storage.write("images/a b.png", b"content")
    url = storage.presign("images/a b.png", 60)
    if storage.local_path("images/a b.png") is not None:
        assert url is None
        return
    assert url is not None
    with urllib.request.urlopen(url) as response:
        assert (response.read(), response.headers["Content-Type"]) == (b"content", "image/png")


def test_partial_objects_are_not_listed_and_are_removed(storage: ObjectStorage, settings: Settings) -> None:
    storage.write("images/a.png", b"a")
    path = storage.local_path("images/a.png")
    if path is not None:
        path.with_name(".a.png.0123abcd.part").write_bytes(b"half")
        path.with_name(".b.png.0123abcd.part").write_bytes(b"half")
    assert keys(storage) == ["images/a.png"]
    partial = sorted(stat.key for stat in storage.list_partial("images"))
    assert partial == ([] if path is None else [f"images/.{name}.png.0123abcd.part" for name in "ab"])
    assert list(storage.list_partial("none")) == []
    storage.remove_partial(["images/a.png", "images/none/c.png"])
    assert keys(storage) == ["images/a.png"]
    if path is not None:
        assert {other.name for other in path.parent.iterdir()} == {"a.png", ".b.png.0123abcd.part"}
