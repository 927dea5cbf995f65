"""Node packs in real workers: one that is there at the start, one that comes while the server runs, and one that goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.custom_nodes.packs import write_pack
from tests.server_process import Server

pytestmark = pytest.mark.timeout(280)


def batch(prefix: str) -> dict[str, Any]:
    nodes = {
        "cook": {"id": "cook", "type": f"{prefix}_cook", "name": "stew"},
        "shout": {"id": "shout", "type": f"{prefix}_shout", "text": "hello", "times": 2},
        "echo": {"id": "echo", "type": f"{prefix}_echo"},
    }
    edges = [(("cook", "recipe"), ("shout", "recipe")), (("shout", "text"), ("echo", "text"))]
    graph_edges = [
        {"source": {"node_id": a, "field": b}, "destination": {"node_id": c, "field": d}} for (a, b), (c, d) in edges
    ]
    return {"batch": {"graph": {"id": "g", "nodes": nodes, "edges": graph_edges}, "runs": 1}}


def results(item: dict[str, Any]) -> dict[str, Any]:
    session = item["session"]
    return {
        source: session["results"][prepared_ids[0]]
        for source, prepared_ids in session["source_prepared_mapping"].items()
    }


def test_packs_run_in_workers(make_server: Callable[[], Server], tmp_path: Path) -> None:
    server = make_server()
    write_pack(server.root / "nodes", "early", prefix="early")
    write_pack(server.root / "nodes", "broken", init="1/0")
    server.start()

    item = server.finished(server.enqueue(batch("early"))[0])
    assert item["status"] == "completed", item["error_traceback"]
    outputs = results(item)
    assert outputs["echo"]["value"] == "HELLO!! HELLO!!"
    assert outputs["shout"]["recipe"] == {"name": "stew", "parts": []}
    assert outputs["shout"]["moods"] == ["loud"]

    source = write_pack(tmp_path / "elsewhere", "late", prefix="late")
    answer = server.client.post("/api/v2/custom_nodes/install", json={"source": str(source)}).json()
    assert answer["success"] is True, answer
    item = server.finished(server.enqueue(batch("late"))[0])
    assert item["status"] == "completed", item["error_traceback"]

    (server.root / "nodes" / "late" / "nodes.py").write_text(
        (source / "nodes.py").read_text().replace(".upper()", ".title()")
    )
    server.client.post("/api/v2/custom_nodes/reload")
    item = server.finished(server.enqueue(batch("late"))[0])
    assert item["status"] == "completed", item["error_traceback"]
    assert results(item)["shout"]["text"] == "Hello!!", "the reloaded code runs"

    server.client.put("/api/v1/queue/default/processor/pause")
    (waiting,) = server.enqueue(batch("late"))
    assert server.client.delete("/api/v2/custom_nodes/late").json()["success"] is True
    server.client.put("/api/v1/queue/default/processor/resume")
    item = server.finished(waiting)
    assert item["status"] == "failed"
    assert "late_" in item["error_message"]
    item = server.finished(server.enqueue(batch("early"))[0])
    assert item["status"] == "completed", "other packs go on"
    assert len(server.client.get("/api/v1/queue/default/list_all").json()) == 5
