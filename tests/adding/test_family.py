"""A family is a folder: with `toys/gradient` beside the others, its model is recognised, loaded and run, by any dialect too, nothing else changed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import Server

SERVE = Path(__file__).parent / "toys" / "serve.py"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "root", [str(SERVE)])
    yield running.start()
    running.client.close()
    running.stop()


def test_a_folder_is_all_that_a_family_needs(server: Server, tmp_path: Path) -> None:
    client = server.client
    model = tmp_path / "dawn"
    model.mkdir()
    (model / "model_index.json").write_text(json.dumps({"_class_name": "GradientPipeline", "colour": [255, 128, 0]}))
    (model / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    client.post("/api/v2/models/install", params={"source": str(model), "inplace": True}, json={}).raise_for_status()
    named = {"model_name": "dawn"}
    record = server.wait_for(lambda: client.get("/api/v2/models/", params=named).json()["models"], "the model")[0]
    assert (record["base"], record["type"], record["format"]) == ("sd-3", "main", "diffusers")

    identifier = {name: record[name] for name in ("key", "hash", "name", "base", "type")}
    nodes = {"paint": {"type": "gradient_paint", "id": "paint", "model": identifier, "width": 32}}
    batch = {"batch": {"graph": {"nodes": nodes, "edges": []}, "runs": 1}}
    (item_id,) = client.post("/api/v1/queue/default/enqueue_batch", json=batch).json()["item_ids"]

    item = server.finished(item_id)
    assert item["status"] == "completed", item["error_traceback"]
    (image,) = client.get("/api/v1/images/").json()["items"]
    assert (image["width"], image["height"]) == (32, 16)
    asked = {"prompt": "dawn", "model": "dawn", "size": "40x40", "response_format": "url"}
    answer = client.post("/v1/images/generations", json=asked)
    assert answer.status_code == 200, answer.text
    made = client.get(answer.json()["data"][0]["url"])
    assert made.headers["content-type"] == "image/png"
    assert client.get("/api/v1/images/").json()["items"][0]["width"] == 64
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["GradientPaintInvocation"]["output"] == {"$ref": "#/components/schemas/ImageOutput"}
    assert "Main_Diffusers_Gradient_Config" in schemas
