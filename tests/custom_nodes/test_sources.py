"""Packs from the web: git goes through the gateway, speaks https only and reads no configuration of the machine."""

import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from invokeclone.custom_nodes import sources
from invokeclone.custom_nodes.sources import SourceError, fetch
from invokeclone.kit.config.settings import Settings
from tests.certificates import self_signed


class Repositories(BaseHTTPRequestHandler):
    """Serves git repositories by git's own program for it."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        environment = {
            "GIT_PROJECT_ROOT": str(self.folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""), "PATH": os.environ["PATH"],
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        process = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        head, _, content = process.stdout.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().splitlines():
            self.send_header(*line.split(": ", 1))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that go away."""


@pytest.fixture
def repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Serve a repository `pack` over https from this machine; returns the address and the requests that came."""
    folder = tmp_path / "served"
    certificate, context = self_signed(tmp_path, "IP:127.0.0.1")
    (folder / "pack").mkdir(parents=True)
    (folder / "pack" / "__init__.py").write_text("x = 1\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *identity, *arguments], cwd=folder / "pack", check=True, capture_output=True)
    handler: Any = type("Handler", (Repositories,), {"folder": folder, "asked": []})
    server = Server(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setattr(sources, "_OPTIONS", (*sources._OPTIONS, "-c", f"http.sslCAInfo={certificate}"))
    yield f"https://127.0.0.1:{server.server_address[1]}/pack/.git", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


async def test_fetch_uses_the_gateway_when_private_addresses_are_allowed(
    settings: Settings, repositories: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither proxies of the environment nor configuration of the machine has a say."""
    (tmp_path / "gitconfig").write_text('[url "https://127.0.0.1:1/"]\n\tinsteadOf = https://127.0.0.1\n')
    for name, value in {
        "https_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "no_proxy": "*", "NO_PROXY": "127.0.0.1",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"), "GIT_PROXY_COMMAND": "/bin/false", "GIT_SSL_NO_VERIFY": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    private = settings.model_copy(update={"allow_private_download_urls": True})
    await fetch(repositories[0], tmp_path / "target", private)
    assert (tmp_path / "target" / "__init__.py").read_text() == "x = 1\n"
    assert repositories[1]


async def test_private_addresses_are_refused_without_a_request(
    settings: Settings, repositories: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    for address in (repositories[0], repositories[0].replace("127.0.0.1", "localhost")):
        with pytest.raises(SourceError, match=r"not on the public internet.*allow_private_download_urls"):
            await fetch(address, tmp_path / "target", settings)
    assert repositories[1] == []
    assert not (tmp_path / "target").exists()


async def test_a_repository_over_the_limit_is_not_fetched(
    settings: Settings, repositories: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 3000)
    private = settings.model_copy(update={"allow_private_download_urls": True})
    with pytest.raises(SourceError, match="exceeds the size limit"):
        await fetch(repositories[0], tmp_path / "target", private)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("https://example.com/a/b.git", "https://example.com/a/b.git"),
        ("git@github.com:owner/pack.git", "https://github.com/owner/pack.git"),
        ("git@host:/srv/pack", "https://host/srv/pack"),
        ("ssh://git@example.com:22/a/b", "https://example.com/a/b"),
        ("git://example.com/a/b", "https://example.com/a/b"),
        ("git://[2001:db8::1]:9418/a", "https://[2001:db8::1]:9418/a"),
    ],
)
def test_addresses_are_normalized_to_https(source: str, address: str) -> None:
    assert sources._address(source) == address


@pytest.mark.parametrize(
    "source",
    [
        "https://[x/a",
        "https://a:port/b",
        "https:///a",
        "ftp://x/y",
        "http://x/y",
        "ext::sh -c x",
        "fd::3",
        "ssh://-oX=y/a",
    ],
)
def test_other_addresses_are_refused(source: str) -> None:
    with pytest.raises(SourceError, match="use a URL"):
        sources._address(source)


def test_git_gets_one_protocol_and_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "http_proxy", "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GIT_CONFIG_COUNT", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "x")
    environment = sources._environment("https")
    assert not {
        "HTTPS_PROXY",
        "http_proxy",
        "GIT_SSH_COMMAND",
        "GIT_EXEC_PATH",
        "GIT_CONFIG_COUNT",
        "SSH_AUTH_SOCK",
    } & set(environment)
    assert (environment["GIT_ALLOW_PROTOCOL"], environment["GIT_CONFIG_GLOBAL"]) == ("https", os.devnull)


async def test_a_folder_that_contains_the_packs_is_not_copied_into_itself(tmp_path: Path, settings: Settings) -> None:
    target = tmp_path / "root" / "nodes" / ".installing-1" / "root"
    target.parent.mkdir(parents=True)
    (tmp_path / "root" / "__init__.py").touch()
    (tmp_path / "link").symlink_to(tmp_path / "root")
    for source in (tmp_path / "root", tmp_path / "link"):
        with pytest.raises(SourceError, match="contains the folder of the node packs"):
            await fetch(str(source), target, settings)
    assert not target.exists()
