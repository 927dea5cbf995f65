"""`invokeclone models install` from the web, without a server."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from invokeclone.cli.main import main
from tests.fake_web import FakeWeb, serve_fake_web


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    """Serve a fake web on a loop of its own, as the command has the test's."""
    ready, over = threading.Event(), threading.Event()
    servers: list[FakeWeb] = []

    async def serve() -> None:
        async with serve_fake_web() as fake:
            servers.append(fake)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield servers[0]
    over.set()
    thread.join()


def test_install_downloads_a_model(
    web: FakeWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVOKEAI_ALLOW_PRIVATE_DOWNLOAD_URLS", "true")
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shapes = {"decoder.conv_in.weight": (2, 4, 3, 3), "encoder.conv_in.weight": (2, 3, 3, 3)}
    web.page("/tiny-vae.safetensors", save({name: np.ones(shape, np.float16) for name, shape in shapes.items()}))
    root = tmp_path / "root"
    assert main(["models", "install", f"{web.url}/tiny-vae.safetensors", "--root", str(root)]) == 0
    output = capsys.readouterr()
    assert "installed tiny-vae (sd-1 vae)" in output.out
    assert "MB" in output.err
    assert len(list((root / "models").rglob("tiny-vae.safetensors"))) == 1
    assert list((root / "models").glob("tmpinstall_*")) == []
    assert main(["models", "install", f"{web.url}/nowhere", "--root", str(root)]) == 1
    assert "404" in capsys.readouterr().err.splitlines()[-1]
