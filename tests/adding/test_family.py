"""A family is a folder: with `toys/gradient` beside the others, its model is recognised, loaded and run, nothing else changed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.whole.conftest import free_port

SERVE = Path(__file__).parent / "toys" / "serve.py"
PATIENCE = 120


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(SERVE), str(tmp_path / "root")],
            env={**os.environ, "PORT": str(port)},
            stdout=log,
            stderr=log,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        wait(lambda: answers(client, process, tmp_path / "log"))
        yield client
    process.terminate()
    process.wait(60)


def answers(client: httpx.Client, process: subprocess.Popen, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return client.get("/api/v1/app/version").is_success
    except httpx.TransportError:
        return False


def wait(condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_a_folder_is_all_that_a_family_needs(client: httpx.Client, tmp_path: Path) -> None:
    model = tmp_path / "dawn"
    model.mkdir()
    (model / "model_index.json").write_text(json.dumps({"_class_name": "GradientPipeline", "colour": [255, 128, 0]}))
    (model / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    client.post("/api/v2/models/install", params={"source": str(model), "inplace": True}, json={}).raise_for_status()
    record = wait(lambda: client.get("/api/v2/models/", params={"model_name": "dawn"}).json()["models"])[0]
    assert (record["base"], record["type"], record["format"]) == ("sd-3", "main", "diffusers")

    identifier = {name: record[name] for name in ("key", "hash", "name", "base", "type")}
    nodes = {"paint": {"type": "gradient_paint", "id": "paint", "model": identifier, "width": 32}}
    batch = {"batch": {"graph": {"nodes": nodes, "edges": []}, "runs": 1}}
    (item_id,) = client.post("/api/v1/queue/default/enqueue_batch", json=batch).json()["item_ids"]

    def finished() -> dict | None:
        item = client.get(f"/api/v1/queue/default/i/{item_id}").json()
        return item if item["status"] in ("completed", "failed") else None

    item = wait(finished)
    assert item["status"] == "completed", item["error_traceback"]
    (image,) = client.get("/api/v1/images/").json()["items"]
    assert (image["width"], image["height"]) == (32, 16)
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["GradientPaintInvocation"]["output"] == {"$ref": "#/components/schemas/ImageOutput"}
    assert "Main_Diffusers_Gradient_Config" in schemas
