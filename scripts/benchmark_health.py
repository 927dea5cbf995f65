"""Latency of `/health` while the largest accepted requests are processed.

Run by `scripts/benchmark.py --only health`.
"""

import io
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
from PIL import Image

from invokeclone.kit.config.limits import Limits

EVERY_S = 0.01
LIMITS = Limits()
PROBE = """
import http.client, json, sys, time
host, port, every = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
connection, times = http.client.HTTPConnection(host, port, timeout=60), []
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    started = time.perf_counter()
    connection.request("GET", "/health"); connection.getresponse().read()
    times.append(1000 * (time.perf_counter() - started))
    time.sleep(every)
print(json.dumps(times))
"""
"""Runs in a separate process, so that the benchmark's own computation does not count."""


def graph(nodes: int, edges: int) -> dict[str, Any]:
    """Return a graph with these numbers of nodes and edges."""
    graph_nodes = {f"n{i}": {"id": f"n{i}", "type": "add", "a": i, "b": 1} for i in range(nodes)}
    ends = [(i, i + step) for step in range(1, 1 + -(-edges // nodes) + 1) for i in range(nodes - step)][:edges]
    return {
        "id": "g",
        "nodes": graph_nodes,
        "edges": [
            {"source": {"node_id": f"n{a}", "field": "value"}, "destination": {"node_id": f"n{b}", "field": "a"}}
            for a, b in ends
        ],
    }


def requests(client: httpx.Client) -> dict[str, Callable[[], httpx.Response]]:
    """Return the largest accepted request of each kind; bodies are created beforehand."""
    json_type = {"content-type": "application/json"}
    enqueue = "/api/v1/queue/default/enqueue_batch"
    body = httpx.Request("POST", "http://x", json={"batch": {"graph": graph(LIMITS.graph_nodes, LIMITS.graph_edges)}})
    values = [[{"node_path": "n0", "field_name": "a", "items": list(range(10_000))}]]
    batch = httpx.Request("POST", "http://x", json={"batch": {"graph": graph(50, 50), "data": values}})
    side = int(LIMITS.image_pixels**0.5) // 8 * 8
    black, noise = io.BytesIO(), io.BytesIO()
    Image.new("1", (side, side)).save(black, "PNG")
    Image.effect_noise((4096, 4096), 64).convert("RGB").save(noise, "PNG", compress_level=1)
    wide = {"resize_to": f'{{"width": {LIMITS.image_side}, "height": {LIMITS.target_pixels // LIMITS.image_side}}}'}
    small = io.BytesIO()
    Image.effect_noise((64, 64), 64).save(small, "PNG")
    empty = b"[" + b"{}," * (LIMITS.json_values // 2 - 10) + b"{}]"

    def upload(data: bytes, **form: str) -> Callable[[], httpx.Response]:
        return lambda: client.post(
            "/api/v1/images/upload",
            params={"image_category": "user", "is_intermediate": "false"},
            files={"file": ("x.png", data, "image/png")},
            data=form,
        )

    return {
        "graph": lambda: client.post(enqueue, content=body.content, headers=json_type),
        "batch": lambda: client.post(enqueue, content=batch.content, headers=json_type),
        "black_image": upload(black.getvalue()),
        "noisy_image": upload(noise.getvalue()),
        "resize_to": upload(small.getvalue(), **wide),
        "values": lambda: client.post("/api/v1/images/star", content=empty, headers=json_type),
    }


def probe_during(client: httpx.Client, work: Callable[[], Any]) -> list[float]:
    """Do `work` in a thread and return the latencies of `/health` meanwhile, in ms, sorted."""
    probe = subprocess.Popen(
        [sys.executable, "-c", PROBE, str(client.base_url.host), str(client.base_url.port), str(EVERY_S)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert probe.stdout
    probe.stdout.readline()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    return sorted(map(float, probe.communicate("stop\n")[0].strip("[]\n").split(",")))


def measure(running: Any) -> dict[str, float]:
    """Return p50, p99 and maximum of `/health` in ms while each kind of request is sent three times in sequence."""
    client = running.client
    client.put("/api/v1/queue/default/processor/pause").raise_for_status()
    result: dict[str, float] = {}
    for name, send in {"nothing": lambda: time.sleep(3), **requests(client)}.items():
        statuses: list[int] = []

        def work(send: Callable[[], Any] = send, statuses: list[int] = statuses) -> None:
            statuses += [getattr(send(), "status_code", 0) for _ in range(3)]

        started = time.perf_counter()
        times = probe_during(client, work)
        spent = time.perf_counter() - started
        result |= {
            f"{name}_status": statuses[-1],
            f"{name}_request_s": spent / 3,
            f"{name}_p50_ms": statistics.median(times),
            f"{name}_p99_ms": times[int(len(times) * 0.99)],
            f"{name}_worst_ms": times[-1],
        }
        client.put("/api/v1/queue/default/clear").raise_for_status()
    return result
