"""Files of the server's machine that users name: the folders for them, links out of these, and who may read elsewhere."""

import os
from pathlib import Path
from typing import Any

import pytest

from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import TooLarge, Unprocessable
from invokeclone.kit.files import user_files
from invokeclone.kit.files.user_files import FileNotReadable, FileRefused, open_text


@pytest.fixture
def shared(tmp_path: Path) -> Settings:
    """Return a server with accounts, a folder of prompts and a secret outside of it."""
    root = tmp_path / "root"
    (root / "prompts" / "inner").mkdir(parents=True)
    (root / "prompts" / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    (root / "prompts" / "inner" / "b.txt").write_text("three\n", encoding="utf-8")
    (root / "secret.txt").write_text("secret\n", encoding="utf-8")
    return Settings(root=root, multiuser=True)


def read(settings: Settings, path: Any, *, is_admin: bool = False) -> str:
    with open_text(settings, str(path), is_admin=is_admin) as file:
        return file.read()


def test_files_in_the_folders_are_read_by_relative_and_absolute_paths(shared: Settings) -> None:
    folder = shared.root / "prompts"
    for path in ("a.txt", "inner/../a.txt", "./a.txt", folder / "a.txt"):
        assert read(shared, path) == "one\ntwo\n"
    assert read(shared, "inner/b.txt") == "three\n"


def test_additional_folders_come_from_the_settings(shared: Settings, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.txt").write_text("four", encoding="utf-8")
    with pytest.raises(FileRefused):
        read(shared, tmp_path / "more" / "c.txt")
    wider = shared.model_copy(update={"allowed_file_folders": [Path("prompts"), tmp_path / "more"]})
    assert read(wider, tmp_path / "more" / "c.txt") == read(wider, "c.txt") == "four"
    assert read(wider, "a.txt") == "one\ntwo\n"


def paths_outside(settings: Settings) -> list[str]:
    """Return paths that lead out of the folders, to files that are there and that are not."""
    folder = settings.root / "prompts"
    (folder / "link.txt").symlink_to(settings.root / "secret.txt")
    (folder / "dangling.txt").symlink_to(settings.root / "no such file")
    (folder / "up").symlink_to(settings.root)
    (folder / "round").symlink_to(folder / "round")
    absolute = [
        settings.root / "secret.txt",
        settings.root / "missing.txt",
        settings.database_path,
        "/etc/passwd",
        "/etc",
    ]
    relative = [
        "../secret.txt",
        "../missing.txt",
        "inner/../../secret.txt",
        "link.txt",
        "dangling.txt",
        "up/secret.txt",
    ]
    return [*map(str, absolute), *relative, "/proc/self/environ", "/dev/zero", "~/../../secret.txt"]


def test_other_users_cannot_read_or_probe_other_files(shared: Settings) -> None:
    network = shared.model_copy(update={"multiuser": False, "host": "0.0.0.0"})
    paths = paths_outside(shared)
    for settings, is_admin in ((shared, False), (network, True)):
        texts = set()
        for path in paths:
            with pytest.raises(FileRefused, match="allowed_file_folders") as caught:
                read(settings, path, is_admin=is_admin)
            texts.add(str(caught.value).replace(path, "PATH"))
        assert len(texts) == 1
        for path in ("~/.ssh/id_rsa", "\\..\\..\\secret.txt", "missing.txt"):  # plain names in the folder
            with pytest.raises(FileNotReadable):
                read(settings, path, is_admin=is_admin)


def test_admins_and_a_local_single_user_read_any_file(shared: Settings) -> None:
    alone = shared.model_copy(update={"multiuser": False, "host": "127.0.0.1"})
    for settings in (shared, alone):
        assert read(settings, settings.root / "secret.txt", is_admin=True) == "secret\n"
        assert read(settings, "a.txt", is_admin=True) == "one\ntwo\n"
        with pytest.raises(FileNotReadable):
            read(settings, settings.root / "missing.txt", is_admin=True)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("192.168.1.4", False), ("", False), ("my-host", False)],
)  # fmt: skip
def test_which_hosts_mean_this_machine_only(host: str, local: bool) -> None:
    assert user_files.is_local(host) is local


def test_only_regular_files_of_limited_size_are_read(shared: Settings) -> None:
    """A pipe would be waited for without end, a device read without end."""
    os.mkfifo(shared.root / "prompts" / "pipe")
    for path, is_admin in (("pipe", False), ("inner", False), ("/dev/zero", True), ("/dev/tty", True)):
        with pytest.raises(FileNotReadable):
            read(shared, path, is_admin=is_admin)
    (shared.root / "prompts" / "large.txt").write_bytes(b"a" * (MIB + 1))
    small = shared.model_copy(update={"limits": Limits(text_file_mib=1)})
    with pytest.raises(TooLarge, match="text_file_mib"):
        read(small, "large.txt")
    (shared.root / "prompts" / "large.txt").write_bytes(b"a" * MIB)
    assert len(read(small, "large.txt")) == MIB


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_invalid_paths_are_refused(shared: Settings, path: str) -> None:
    with pytest.raises(Unprocessable):
        read(shared, path)


@pytest.mark.parametrize("path", ["x" * 5000, "a/" * 3000, "\ud800.txt"])
def test_unusual_paths_are_refused_without_errors(shared: Settings, path: str) -> None:
    with pytest.raises((FileNotReadable, FileRefused, Unprocessable)):
        read(shared, path)


def test_other_encodings_are_refused_and_a_utf_8_bom_is_stripped(shared: Settings) -> None:
    (shared.root / "prompts" / "latin.txt").write_bytes(b"caf\xe9")
    (shared.root / "prompts" / "marked.txt").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    with pytest.raises(Unprocessable, match="UTF-8"):
        read(shared, "latin.txt")
    assert read(shared, "marked.txt") == "café"
