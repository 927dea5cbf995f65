"""The official web UI on top: installing a bundle from a wheel, and serving what is installed."""

import base64
import gzip
import hashlib
import os
import zipfile
from pathlib import Path

import httpx
import pytest

from invokeclone.cli import webui as cli_webui
from invokeclone.cli.main import main
from invokeclone.kit.config.settings import Settings
from invokeclone.server import webui
from invokeclone.server.app import create_app

SCRIPT = "console.log('ours')\n" * 100
FILES = {
    "invokeai/frontend/web/dist/index.html": "<!doctype html><title>bundle</title>",
    "invokeai/frontend/web/dist/assets/index-abc.js": SCRIPT,
    "invokeai/frontend/web/dist/locales/en.json": "{}",
    "invokeai/app/secret.py": "raise SystemExit",
}


def wheel(path: Path, files: dict[str, str], version: str = "9.9.9", spoil: str | None = None) -> Path:
    """Write a wheel whose record holds the hashes of `files`, but for a wrong one for `spoil`."""
    with zipfile.ZipFile(path, "w") as archive:
        rows = []
        for name, text in files.items():
            archive.writestr(name, text)
            content = text if name != spoil else f"{text} "
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(text)}")
        archive.writestr(f"invokeai-{version}.dist-info/RECORD", "\n".join(rows))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def command(root: Path, *arguments: str) -> int:
    return main(["webui", arguments[0], "--root", str(root), *arguments[1:]])


def client(root: Path, settings: Settings) -> httpx.AsyncClient:
    app = create_app(settings.model_copy(update={"root": root}), worker_command=None)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def test_install_extracts_and_activates_only_the_static_folder(root: Path, tmp_path: Path) -> None:
    assert command(root, "install", "9.9.9", "--wheel", str(wheel(tmp_path / "ui.whl", FILES))) == 0
    paths = {path.relative_to(root / "webui").as_posix() for path in (root / "webui").rglob("*") if path.is_file()}
    assert paths == {
        "active",
        "9.9.9/index.html",
        "9.9.9/assets/index-abc.js",
        "9.9.9/assets/index-abc.js.gz",
        "9.9.9/locales/en.json",
    }
    assert gzip.decompress((root / "webui/9.9.9/assets/index-abc.js.gz").read_bytes()).decode() == SCRIPT
    assert webui.active_version(root) == "9.9.9"


@pytest.mark.parametrize(
    ("files", "version", "spoil", "message"),
    [
        (FILES, "9.9.9", "invokeai/frontend/web/dist/locales/en.json", "does not match the package's RECORD"),
        ({"invokeai/app/secret.py": "x"}, "9.9.9", None, "contains no web UI"),
        (FILES, "1.2.3", None, "this is not the package invokeai 9.9.9"),
        ({**FILES, "invokeai/frontend/web/dist/../../../../x.js": "x"}, "9.9.9", None, "outside of the target folder"),
    ],
)
def test_wheel_that_does_not_match_its_record_is_not_installed(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    version: str,
    spoil: str | None,
    message: str,
) -> None:
    path = wheel(tmp_path / "ui.whl", files, version, spoil)
    assert command(root, "install", "9.9.9", "--wheel", str(path)) == 1
    assert message in capsys.readouterr().err
    assert list((root / "webui").iterdir()) == []


@pytest.mark.parametrize("limit", ["MAX_BUNDLE_BYTES", "MAX_FILES", "MAX_RECORD_BYTES"])
def test_a_bundle_over_a_limit_is_refused_before_it_is_unpacked(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(cli_webui, limit, 2)
    assert command(root, "install", "9.9.9", "--wheel", str(wheel(tmp_path / "ui.whl", FILES))) == 1
    assert "over the size limit" in capsys.readouterr().err
    assert list((root / "webui").iterdir()) == []


@pytest.mark.parametrize("name", ["../x.js", "a/../../x.js", "/etc/x.js", "..\\x.js/../../x.js"])
def test_names_outside_the_target_folder_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = wheel(tmp_path / "ui.whl", {**FILES, f"invokeai/frontend/web/dist/{name}": "x"})
    assert command(root, "install", "9.9.9", "--wheel", str(path)) == 1
    assert "outside of the target folder" in capsys.readouterr().err
    assert [file for file in tmp_path.rglob("x.js") if file.is_file()] == []


def test_a_link_in_a_bundle_becomes_a_plain_file(root: Path, tmp_path: Path) -> None:
    path = wheel(tmp_path / "ui.whl", {**FILES, "invokeai/frontend/web/dist/link.txt": "/etc/passwd"})
    with zipfile.ZipFile(path) as archive:
        entries = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in entries.items():
            info.external_attr = (0o120777 if info.filename.endswith("link.txt") else 0o100644) << 16
            archive.writestr(info, content)
    assert command(root, "install", "9.9.9", "--wheel", str(path)) == 0
    link = root / "webui" / "9.9.9" / "link.txt"
    assert not link.is_symlink()
    assert link.read_text() == "/etc/passwd"


def test_invalid_wheels_and_versions_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ui.whl").write_text("no zip")
    assert command(root, "install", "9.9.9", "--wheel", str(tmp_path / "ui.whl")) == 1
    assert "cannot unpack" in capsys.readouterr().err
    for wrong in ("../../etc", "1.0 --index-url=http://evil", "--help me"):
        assert command(root, "use", "--", wrong) == 2 or "not installed" in capsys.readouterr().err
    assert command(root, "install", "../../etc", "--wheel", str(tmp_path / "ui.whl")) == 2


def test_versions_are_used_listed_and_removed(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("6.10.0", "6.9.0"):
        path = wheel(tmp_path / f"{version}.whl", FILES, version)
        assert command(root, "install", version, "--wheel", str(path)) == 0
    assert command(root, "use", "6.10.0") == 0
    capsys.readouterr()
    assert command(root, "list") == 0
    assert capsys.readouterr().out == "  own\n  6.9.0\n* 6.10.0\n"
    assert command(root, "remove", "6.10.0") == 0
    assert webui.active_version(root) is None
    assert webui.list_versions(root) == ["6.9.0"]
    assert command(root, "use", "6.10.0") == 2
    assert command(root, "use", "own") == 0


async def test_running_server_switches_to_the_selected_version(root: Path, tmp_path: Path, settings: Settings) -> None:
    async with client(root, settings) as http:
        assert "invokeclone" in (await http.get("/")).text
        command(root, "install", "9.9.9", "--wheel", str(wheel(tmp_path / "ui.whl", FILES)))
        answer = await http.get("/")
        assert answer.text == FILES["invokeai/frontend/web/dist/index.html"]
        assert "no-store" in answer.headers["cache-control"]
        command(root, "use", "own")
        assert "invokeclone" in (await http.get("/")).text


async def test_files_are_compressed_cacheable_and_revalidated(root: Path, tmp_path: Path, settings: Settings) -> None:
    command(root, "install", "9.9.9", "--wheel", str(wheel(tmp_path / "ui.whl", FILES)))
    async with client(root, settings) as http:
        answer = await http.get("/assets/index-abc.js", headers={"Accept-Encoding": "gzip"})
        assert answer.text == SCRIPT
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "immutable" in answer.headers["cache-control"]
        plain = await http.get("/assets/index-abc.js", headers={"Accept-Encoding": "identity"})
        assert plain.text == SCRIPT
        assert "content-encoding" not in plain.headers
        again = await http.get(
            "/assets/index-abc.js", headers={"Accept-Encoding": "gzip", "If-None-Match": answer.headers["etag"]}
        )
        assert again.status_code == 304
        assert (await http.head("/assets/index-abc.js")).status_code == 200


async def test_pages_of_the_ui_get_its_index_and_the_api_keeps_its_json_404(
    root: Path, tmp_path: Path, settings: Settings
) -> None:
    """The reference answers HTML with 200 to any unknown address; here only what a browser opens as a page gets it."""
    command(root, "install", "9.9.9", "--wheel", str(wheel(tmp_path / "ui.whl", FILES)))
    page = {"Accept": "text/html,application/xhtml+xml"}
    async with client(root, settings) as http:
        for path in ("/app", "/login", "/admin/users"):
            assert (await http.get(path, headers=page)).text == FILES["invokeai/frontend/web/dist/index.html"]
        for path, headers in (
            ("/api/v1/nope", page),
            ("/app", {"Accept": "application/json"}),
            ("/assets/nope.js", page),
            ("/assets/%2e%2e/%2e%2e/active", page),
            ("/..%2f..%2fsecret.txt", page),
        ):
            answer = await http.get(path, headers=headers)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), path
        assert (await http.post("/app")).status_code == 404
        assert (await http.get("/api/v1/images/upload", headers=page)).status_code == 405


async def test_a_link_out_of_the_bundle_is_not_followed(root: Path, tmp_path: Path, settings: Settings) -> None:
    command(root, "install", "9.9.9", "--wheel", str(wheel(tmp_path / "ui.whl", FILES)))
    (tmp_path / "secret.txt").write_text("secret")
    os.symlink(tmp_path / "secret.txt", root / "webui/9.9.9/secret.txt")
    async with client(root, settings) as http:
        assert (await http.get("/secret.txt")).status_code == 404
