"""An installation from the web by a real server that is killed in the middle: the next start goes on where it was."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.fake_web import FakeHub, serve_fake_web
from tests.server_process import Server
from tests.whole.conftest import EventListener

MIB = 1024 * 1024


@pytest.mark.timeout(280)
async def test_download_of_a_killed_server_is_resumed(make_server: Callable[[], Server], tmp_path: Path) -> None:
    shapes = {"decoder.conv_in.weight": (2, 4, 3, 3), "encoder.conv_in.weight": (2, 3, 3, 3), "pad": (4 * MIB,)}
    data = save({name: np.ones(shape, np.float16) for name, shape in shapes.items()})
    server = make_server()
    async with serve_fake_web() as web:
        hub = FakeHub(web)
        hub.repository("owner/vae", {"sd-vae.safetensors": data})
        page = hub.page("owner/vae", "sd-vae.safetensors")
        page.hold_after = 6 * MIB
        environment = {
            "HF_ENDPOINT": web.url,
            "HF_HOME": str(tmp_path / "hf"),
            "INVOKEAI_ALLOW_PRIVATE_DOWNLOAD_URLS": "true",
        }

        def begin() -> None:
            server.start(**environment)
            answer = server.client.post("/api/v2/models/install", params={"source": "owner/vae"}, json={"name": "V"})
            assert answer.status_code == 201, answer.text
            server.wait_for(lambda: server.client.get("/api/v2/models/install/0").json()["bytes"] > MIB, "bytes")
            server.kill()

        await asyncio.to_thread(begin)
        page.hold_after = 0  # nothing more comes before somebody listens
        page.go.clear()
        await asyncio.to_thread(lambda: server.start(**environment))
        listener = EventListener()
        await listener.client.connect(server.url)
        page.go.set()
        complete = await listener.until("model_install_complete", id=0)
        await listener.client.disconnect()
        assert (complete["config"]["name"], complete["config"]["type"]) == ("V", "vae")
        ranges = [headers.get("Range") for headers in web.asked_for(hub.path("owner/vae", "sd-vae.safetensors"))]
        assert ranges[0] is None
        assert int(str(ranges[1]).removeprefix("bytes=").removesuffix("-")) > MIB
        assert len(ranges) == 2
        event_names = [name for name, _ in listener.events]
        assert {"download_complete", "model_install_downloads_complete", "model_install_started"} <= set(event_names)
    models = server.root / "models"
    assert (models / complete["config"]["path"]).read_bytes() == data
    await asyncio.to_thread(server.wait_for, lambda: not list(models.glob("tmpinstall_*")), "the folder to go")
