"""The lock of a root: one holder, named; dead holders and file systems without locks are no hindrance."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from invokeclone.kit.files.root_lock import FILE, RootInUse, RootLock

HOLDER = """
import sys, time
from pathlib import Path
from invokeclone.kit.files.root_lock import RootLock
lock = RootLock(Path(sys.argv[1]))
lock.acquire()
lock.write("http://127.0.0.1:9999")
print("held", flush=True)
time.sleep(1000)
"""


def test_a_second_lock_is_refused_until_the_first_process_dies(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        before = (tmp_path / FILE).read_bytes()
        with pytest.raises(RootInUse, match=rf"process {holder.pid} at http://127.0.0.1:9999\)"):
            RootLock(tmp_path).acquire()
        assert (tmp_path / FILE).read_bytes() == before
        holder.kill()
    lock = RootLock(tmp_path)
    lock.acquire()
    assert str(os.getpid()) in (tmp_path / FILE).read_text()
    lock.release()
    lock.release()
    RootLock(tmp_path).acquire()


def test_a_holder_that_wrote_no_address(tmp_path: Path) -> None:
    lock = RootLock(tmp_path / "new")
    lock.acquire()
    with pytest.raises(RootInUse, match="starting up"):
        RootLock(tmp_path / "new").acquire()
    (tmp_path / "new" / FILE).write_text("[]")
    with pytest.raises(RootInUse, match="unknown process"):
        RootLock(tmp_path / "new").acquire()
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, logged: list[Any]
) -> None:
    def refuse(_descriptor: int, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = RootLock(tmp_path)
    lock.acquire()
    assert any("cannot be locked" in record.getMessage() for record in logged)
    lock.release()


def test_an_unwritable_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        RootLock(tmp_path / "file" / "root").acquire()
