"""Files that are whole or not there."""

from pathlib import Path

import pytest

from invokeclone.kit.errors import BadRequest
from invokeclone.kit.files.storage import remove_file, safe_join, write_file


def test_write_is_atomic_and_creates_folders(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b.bin", b"one")
    write_file(tmp_path / "a" / "b.bin", b"two")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"two"
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.bin"]


def test_a_failed_write_keeps_the_old_file_and_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_file(tmp_path / "folder", b"x")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_removing_a_missing_file_is_fine(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"")
    remove_file(tmp_path / "a")
    remove_file(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest):
        safe_join(tmp_path, name)


def test_names_inside_the_folder_are_joined(tmp_path: Path) -> None:
    assert safe_join(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
