"""Copies of files and folders: which way is taken, and that a copy is whole and made of files only."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from invokeclone.kit.files import copies


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"a" * 100)
    (folder / "deep" / "b").write_bytes(b"b")
    (folder / ".hidden").write_bytes(b"h")
    return folder


@pytest.fixture
def clones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the file system can clone files."""

    def ioctl(target: int, request: int, origin: int) -> int:
        assert request == 0x40049409
        os.write(target, os.pread(origin, 1000, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def copy(source: Path, target: Path, *ways: copies.Way) -> list[tuple[int, int]]:
    """Copy everything, and return the reports of progress."""
    progress: list[tuple[int, int]] = []
    copies.copy_files(copies.list_files(source), target, ways, lambda *state: progress.append(state))
    return progress


def same_files(one: Path, other: Path) -> set[bool]:
    return {(one / name).samefile(other / name) for name in ("a", "deep/b")}


def test_a_clone_is_independent(source: Path, tmp_path: Path, clones: None) -> None:
    copy(source, tmp_path / "copy", copies.clone, copies.link)
    assert same_files(source, tmp_path / "copy") == {False}
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == ["a", "b", "deep"]
    assert (tmp_path / "copy" / "a").read_bytes() == b"a" * 100


def test_a_link_where_clones_are_not_possible(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert all(total == 0 for _, total in copy(source, tmp_path / "copy", copies.clone, copies.link))
    assert same_files(source, tmp_path / "copy") == {True}


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_bytes_where_links_are_not_possible(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    progress = copy(source, tmp_path / "copy", copies.link)
    assert progress[-1] == (101, 101)
    assert same_files(source, tmp_path / "copy") == {False}
    assert (tmp_path / "copy" / "deep" / "b").read_bytes() == b"b"


def test_an_existing_file_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a").write_bytes(b"mine")
    for ways in ((), (copies.link,), (copies.clone,)):
        with pytest.raises(FileExistsError):
            copy(source, tmp_path / "copy", *ways)
        assert (tmp_path / "copy" / "a").read_bytes() == b"mine"
        shutil.rmtree(tmp_path / "copy" / "deep", ignore_errors=True)


def test_permissions_of_the_source_do_not_lock_the_copy(source: Path, tmp_path: Path) -> None:
    (source / "deep").chmod(0o555)
    (source / "a").chmod(0o400)
    copy(source, tmp_path / "copy")
    assert (tmp_path / "copy" / "deep").stat().st_mode & 0o700 == 0o700
    (source / "deep").chmod(0o755)


@pytest.mark.parametrize("target", ["missing", "itself", "a/b"])
def test_a_broken_link_is_an_error(source: Path, target: str) -> None:
    (source / "itself").symlink_to(target)
    with pytest.raises(copies.BrokenLink, match=target):
        copies.list_files(source)


def test_loops_end_and_several_links_to_one_folder_are_all_followed(source: Path) -> None:
    (source / "deep" / "up").symlink_to("..")
    (source / "again").symlink_to("deep")
    names = sorted(file.relative.as_posix() for file in copies.list_files(source))
    assert names == ["a", "again/b", "deep/b"]


def test_too_many_files_and_too_deep_folders(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MAX_FILES", 1)
    with pytest.raises(copies.TooManyFiles):
        copies.list_files(source)
    for number in range(9):  # two links from each folder to the next lead to 1023 folders
        (source / "links" / str(number)).mkdir(parents=True)
        for name in ("a", "b"):
            (source / "links" / str(number) / name).symlink_to(f"../{number + 1}")
    (source / "links" / "9").mkdir()
    monkeypatch.setattr(copies, "MAX_FILES", 900)
    with pytest.raises(copies.TooManyFiles, match="folders; do links"):
        copies.list_files(source)
    source.joinpath(*["d"] * 21).mkdir(parents=True)
    with pytest.raises(copies.TooManyFiles, match="deep"):
        copies.list_files(source / "d")


def test_only_copied_files_are_removed_and_links_not_followed(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "c").write_bytes(b"c")
    (source / "linked").symlink_to(other)
    (source / "file").symlink_to(other / "c")
    files = copies.list_files(source)
    (source / "new").write_bytes(b"n")
    (source / "a").write_bytes(b"changed")
    copies.remove_source(source, files)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["other", "other/c", "source", "source/.hidden", "source/a", "source/new"]
