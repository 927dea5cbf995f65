"""Cost of an item by length of the queue; `scripts/benchmark.py --only growth` runs it.

Measures the CPU of the server and its worker to claim, run and finish a no-op node while many others wait, and to drain
them by tenths of the whole queue; and CPU, memory and `/health` latency while all items are listed, canceled and
pruned.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from benchmark_against import cpu_ns
from benchmark_health import probe_during

if TYPE_CHECKING:
    from benchmark import Running

QUEUE_LIMIT = {"INVOKEAI_MAX_QUEUE_SIZE": "200000"}
LENGTHS = (100, 10_000, 100_000)
TENTHS = 10
RUN = 300
"""Maximum number of items that are run at each length."""
BATCH_SIZE = 1000
QUEUE = "/api/v1/queue/default"
UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""Compressing a list costs more than creating it."""


def batch(runs: int) -> dict[str, Any]:
    """Return a batch of items of one node each."""
    node = {"type": "integer", "id": "n", "value": 1, "is_intermediate": True, "use_cache": False}
    return {"batch": {"graph": {"id": "g", "nodes": {"n": node}, "edges": []}, "runs": runs, "destination": "growth"}}


class Growth:
    """A server with a growing queue."""

    def __init__(self, running: "Running") -> None:
        self.running = running
        self.database = sqlite3.connect(next(running.root.rglob("*.db")))
        self.pending = 0

    def ask(self, method: str, path: str, **options: Any) -> None:
        """Send a request to the queue."""
        self.running.client.request(method, f"{QUEUE}/{path}", **options).raise_for_status()

    def spent(self) -> tuple[float, float]:
        """Return the CPU so far of the server and of its worker, in ms."""
        server = psutil.Process(self.running.process.pid)
        return cpu_ns(server.pid) / 1e6, sum(cpu_ns(child.pid) for child in server.children(recursive=True)) / 1e6

    def fill(self, length: int) -> None:
        """Fill the queue up to `length` waiting items."""
        while self.pending < length:
            count = min(BATCH_SIZE, length - self.pending)
            self.ask("POST", "enqueue_batch", json=batch(count))
            self.pending += count

    def left(self) -> int:
        """Return the number of waiting items, read from the database so that it costs the server nothing."""
        query = "SELECT ifnull(sum(number), 0) FROM queue_counts WHERE scope = 'queue' AND status IN ('pending', 'in_progress')"
        return int(self.database.execute(query).fetchone()[0])

    def drain(self, count: int) -> dict[str, float]:
        """Run `count` items and return the cost per item of the server and its worker, in ms."""
        server, worker, goal = *self.spent(), self.pending - count
        self.ask("PUT", "processor/resume")
        while self.left() > goal:
            time.sleep(0.01)
        self.ask("PUT", "processor/pause")
        time.sleep(0.1)
        left = self.left()
        finished, self.pending = self.pending - left, left
        after = self.spent()
        return {"server_ms": (after[0] - server) / finished, "worker_ms": (after[1] - worker) / finished}

    def rest(self) -> None:
        """Wait for the worker's preloading, which belongs to no item."""
        spent = -1e9
        while (now := self.spent()[1]) - spent > 50:
            spent = now
            time.sleep(2)

    def memory(self) -> float:
        """Return the memory allocated by the server in MiB, without memory-mapped files such as the database."""
        lines = Path(f"/proc/{self.running.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

    @contextlib.contextmanager
    def highest_memory(self) -> Iterator[list[float]]:
        """Append the server's allocated memory to the yielded list every few milliseconds."""
        samples, stop = [self.memory()], threading.Event()

        def look() -> None:
            while not stop.wait(0.005):
                samples.append(self.memory())

        thread = threading.Thread(target=look)
        thread.start()
        yield samples
        stop.set()
        thread.join()

    def once(self, name: str, method: str, path: str) -> dict[str, float]:
        """Measure one request over the whole queue: CPU and the slowest `/health` in ms, additional memory in MiB."""
        started = self.spent()[0]
        with self.highest_memory() as memory:
            times = probe_during(self.running.client, lambda: self.receive(method, path))
        return {
            f"{name}_cpu_ms": self.spent()[0] - started,
            f"{name}_memory_mib": max(memory) - memory[0],
            f"{name}_health_p50_ms": times[len(times) // 2],
            f"{name}_health_worst_ms": times[-1],
        }

    def receive(self, method: str, path: str) -> None:
        """Send a request and discard its response body."""
        with self.running.client.stream(method, f"{QUEUE}/{path}", headers=UNCOMPRESSED) as answer:
            answer.raise_for_status()
            for _ in answer.iter_raw():
                pass

    def status(self, times: int = 50) -> float:
        """Return the cost of the queue status in ms."""
        before, _ = self.spent()
        for _ in range(times):
            self.ask("GET", "status")
        return (self.spent()[0] - before) / times


def measure(running: "Running") -> dict[str, float]:
    """Measure the cost of an item, and of the queue status, at each length."""
    growth = Growth(running)
    results = {}
    with contextlib.closing(growth.database):
        growth.fill(RUN)
        growth.drain(RUN)
        growth.rest()
        for length in LENGTHS:
            growth.ask("PUT", "processor/pause")
            growth.fill(length)
            results[f"status_{length}_ms"] = growth.status()
            results |= {f"item_of_{length}_{name}": value for name, value in growth.drain(min(RUN, length)).items()}
        length = LENGTHS[-1]
        growth.fill(length)
        results |= growth.once(f"list_{length}", "GET", "list_all")
        results |= growth.once(f"cancel_{length}", "PUT", "cancel_all_except_current")
        results |= growth.once(f"prune_{length}", "PUT", "prune")
        growth.pending = 0
        growth.fill(length)
        for tenth in range(1, TENTHS + 1):
            spent = growth.drain(growth.pending // (TENTHS + 1 - tenth))
            if tenth in (1, TENTHS // 2, TENTHS):
                results |= {f"drain_{length}_tenth_{tenth}_{name}": value for name, value in spent.items()}
    return results
