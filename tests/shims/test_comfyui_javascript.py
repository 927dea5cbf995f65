"""ComfyUI's API used through the JavaScript package @stable-canvas/comfyui-client: its public methods."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server_process import Server
from tests.shims.conftest import read_image

SCRIPT = Path(__file__).with_name("comfyui_client.mjs")
PACKAGES = Path(__file__).parents[2] / ".cache" / "comfyui-client"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (PACKAGES / "node_modules" / "ws").is_dir(),
        reason=f"scripts/test installs the client into {PACKAGES} if npm is available",
    ),
]


@pytest.fixture(scope="module", params=["", "/api"])
def result(server: Server, request: pytest.FixtureRequest) -> dict[str, Any]:
    with httpx.Client(base_url=server.url) as http:
        http.post("/history", json={"clear": True}).raise_for_status()
    command = ["node", str(SCRIPT), str(PACKAGES), server.url.removeprefix("http://"), request.param]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "unhandled" not in done.stderr
    return dict(json.loads(done.stdout))


def test_lists(result: dict[str, Any]) -> None:
    lists = result["lists"]
    assert lists["models"] == lists["vaes"] == ["Embedded Tiny"]
    assert {"KSampler", "SaveImageWebsocket", "LoadImage"} <= set(lists["nodes"])
    assert "euler" in lists["samplers"]
    assert "karras" in lists["schedulers"]
    for name in ("extensions", "embeddings", "controlnets", "upscalers", "hypernetworks", "loras"):
        assert lists[name] == [], name
    assert {"name": "checkpoints", "folders": [], "extensions": []} in lists["folders"]
    assert [model["name"] for model in lists["checkpoints"]] == ["Embedded Tiny"]
    assert lists["metadata"]["modelspec.title"] == "Embedded Tiny"
    assert lists["stats"]["system"]["comfyui_version"]


def test_settings_and_user_data(result: dict[str, Any]) -> None:
    user = result["user"]
    assert user["users"] == {"storage": "server", "migrated": True}
    assert user["create"]["error"] == "HttpError"
    assert user["stored"] == [200, 200]
    assert user["settings"] == {"a": 1, "b": {"c": None}, "d/e": [True]}
    assert user["setting"] == [True]
    assert json.loads(user["data"]) == {"nodes": []}
    assert user["missing"]["error"] == "HttpError"


def test_every_way_to_run_a_prompt_returns_its_images_and_no_previews(result: dict[str, Any]) -> None:
    counts = {"saved": 2, "sent": 2, "previewed": 1, "enqueued": 1, "polled": 1}
    for name, count in counts.items():
        images = result[name]
        assert len(images) == count, name
        for image in images:
            assert image["type"] == ("buff" if name == "sent" else "url")
            assert read_image(base64.b64decode(image["bytes"])).size == (64, 64)
    assert [image["mime"] for image in result["pipe"]] == ["image/png"]
    assert "type=temp" in result["previewed"][0]["url"]
    assert result["events"]["progress"]["max"] == 6
    assert result["events"]["events"]["b_preview"] == 3, "the three images over the socket"
    assert {"status", "executing", "executed", "execution_start", "execution_success"} <= set(
        result["events"]["events"]
    )


def test_queue_history_and_interrupt(result: dict[str, Any]) -> None:
    assert [len(result["queue"][name]) for name in ("Running", "Pending")] == [1, 1]
    assert result["queue"]["Running"][0][3]["create_time"] > 1_700_000_000_000
    running, pending = result["status"]
    assert running == {"running": True, "pending": False, "done": False}
    assert pending == {"running": False, "pending": True, "done": False}
    assert result["interrupted"]["error"] == "WorkflowInterruptedError"
    assert result["refused"]["error"] == "HttpError"
    assert "(400 " in result["refused"]["message"]
    assert result["history"] == 7
    assert result["left"] == 6
