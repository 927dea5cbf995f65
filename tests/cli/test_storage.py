"""`invokeclone storage copy`: from a root's folders to another storage."""

from pathlib import Path
from typing import Any

import pytest

from invokeclone.cli.main import main
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage.addresses import local_storage


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
