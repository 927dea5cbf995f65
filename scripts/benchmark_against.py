"""Compare this checkout's CPU per request with another checkout's.

Both servers run, and requests alternate between them. `scripts/benchmark.py --against DIR` runs it. DIR is a checkout,
such as a worktree of an older commit. CPU time is that of the server process (in generation rows also of its workers)
in nanoseconds, from the kernel's process clock, so ratios are reliable on a busy machine; HTTP compression is off and
torch has one thread.
"""

import contextlib
import http.client
import io
import itertools
import json
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import benchmark
import psutil
from PIL import Image

HEAVY, LIGHT = 0.33, 0.8
"""The maximum share of the reference's CPU that a request may take."""

MEASURED = {
    "app/version": (LIGHT, 0.30),
    "openapi.json": (HEAVY, 0.05),
    "workflows/ list": (HEAVY, 0.18),
    "v2/models/": (LIGHT, 1.55),
    "/ (UI index)": (LIGHT, 0.49),
    "app/config": (LIGHT, 0.28),
    "boards/ all": (LIGHT, 1.19),
    "enqueue 1, 1 node": (LIGHT, 0.75),
    "enqueue 1, sd15": (LIGHT, 0.90),
    "enqueue 1000 seeds, 1 node": (HEAVY, 0.70),
    "enqueue 1000 seeds, sd15": (HEAVY, 0.48),
    "status, 1000 pending": (LIGHT, 0.39),
    "list_all 1000": (HEAVY, 0.02),
    "item_ids 1000": (LIGHT, 0.44),
    "items_by_ids 50": (HEAVY, 0.03),
    "b/status": (LIGHT, 0.54),
    "i/id": (LIGHT, 0.40),
    "current": (LIGHT, 0.78),
    "next": (LIGHT, 0.31),
    "counts_by_destination": (LIGHT, 0.62),
    "i/id/cancel": (LIGHT, 0.27),
    "cancel_by_batch_ids 980": (HEAVY, 1.03),
    "prune 1000": (HEAVY, 1.86),
    "clear 1000": (HEAVY, 0.76),
    "upload 512": (HEAVY, 0.35),
    "images/ page 100": (LIGHT, 1.02),
    "images/ last page 100": (LIGHT, 0.87),
    "images/names": (LIGHT, 1.07),
    "images_by_names 100": (LIGHT, 0.63),
    "image dto": (LIGHT, 1.20),
    "image metadata": (LIGHT, 0.95),
    "thumbnail": (LIGHT, 1.08),
    "full 512": (LIGHT, 1.15),
    "gallery item_names": (LIGHT, 1.11),
    "board create": (LIGHT, 1.08),
    "board_images/batch 100": (HEAVY, 0.14),
    "boards/ all, 30 boards": (LIGHT, 0.93),
    "boards/{id}/image_names": (LIGHT, 1.17),
    "gen 1-node": (HEAVY, 0.03),
    "gen 20 x 1-node": (HEAVY, 0.01),
    "gen sd15": (HEAVY, 0.14),
    "gen 10 x sd15": (HEAVY, 0.11),
}
"""The goal of each row, and the ratio of commit 1b5f80f's CPU to that of InvokeAI 6.14.2.

The ratios were measured in one interleaved run (2026-11-29). This checkout may take `goal / ratio` of 1b5f80f's CPU.
"""

QUEUE = "/api/v1/queue/default"
GALLERY = "is_intermediate=false&categories=general"


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process and all its threads, including those that have ended."""
    return time.clock_gettime_ns(~pid << 3 | 2)  # the clock id of a process's CPU time


class Side(benchmark.Running):
    """The server of one checkout, with the data that rows use."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        super().__init__(folder, benchmark.ONE_THREAD | {"INVOKEAI_HTTP_COMPRESSION_LEVEL": "0"}, checkout=checkout)
        self.wait(self.answers)
        address = self.client.base_url
        self.http = http.client.HTTPConnection(address.host, address.port, timeout=600)
        self.spent = 0
        self.workers = False
        self.calls = 0
        self.facts: dict[str, Any] = {}

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """Send a request and return the response body; exits on an error."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if content is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            self.http.request(method, path, content, headers)
            answer = self.http.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):  # the connection was idle for too long
            self.http.close()
            self.http.request(method, path, content, headers)
            answer = self.http.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:500]!r}")
        return data

    def json(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.ask(method, path, body))

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(next(self.root.rglob("*.db")))

    def cpu_time(self) -> int:
        """Return the CPU time so far of the processes that the row counts."""
        pids = [self.process.pid]
        if self.workers:
            pids += [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        return sum(map(cpu_ns, pids))

    def finish(self) -> None:
        """Wait until nothing is pending, by reading the database: waiting costs the server nothing."""
        with contextlib.closing(self.database()) as database:
            while database.execute("SELECT count(*) FROM session_queue WHERE completed_at IS NULL").fetchone()[0]:
                time.sleep(0.005)


@dataclass
class Row:
    """A request, its number of repetitions, and the unmeasured preparation before each of them."""

    name: str
    times: int
    request: Callable[[Side, int], object]
    before: Callable[[Side], object] | None = None
    workers: bool = False
    results: list[float] = field(default_factory=list)


def measure(row: Row, sides: tuple[Side, Side]) -> tuple[float, float]:
    """Return the CPU in ms of one request on each side."""
    for side in sides:
        side.workers = row.workers
        side.spent = 0
        if row.times > 2:
            for warm in range(2):
                if row.before:
                    row.before(side)
                row.request(side, -1 - warm)
    for number in range(row.times):
        for side in sides if number % 2 else reversed(sides):
            if row.before:
                row.before(side)
            start = side.cpu_time()
            row.request(side, number)
            time.sleep(0.002 if row.times > 2 else 0.02)  # work after the response belongs to the request
            side.spent += side.cpu_time() - start
    return sides[0].spent / row.times / 1e6, sides[1].spent / row.times / 1e6


def one_node(data: list[int], **fields: Any) -> dict[str, Any]:
    node = {"type": "integer", "id": "seed", "value": 1, "is_intermediate": True, "use_cache": False}
    return _batch({"id": "g", "nodes": {"seed": node}, "edges": []}, data, fields)


def _batch(graph: dict[str, Any], data: list[int], fields: dict[str, Any]) -> dict[str, Any]:
    datum = {"node_path": "seed", "field_name": "value", "items": data}
    return {
        "prepend": False,
        "batch": {"graph": graph, "runs": 1, "origin": "bench", "destination": "bench", "data": [[datum]], **fields},
    }


def sd15(side: Side, data: list[int]) -> dict[str, Any]:
    body = benchmark.batch(side, 64, 1, data)
    del body["batch"]["data"][0][1:]  # one prompt, as clients send it
    return body


def enqueue(side: Side, body: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = side.json("POST", f"{QUEUE}/enqueue_batch", body)
    return result


def thousand(side: Side) -> None:
    """Create exactly a thousand pending items of the Stable Diffusion graph, and store their ids and batch."""
    side.ask("PUT", f"{QUEUE}/clear")
    body = sd15(side, list(range(1000)))
    body["batch"]["destination"] = "bench"
    result = enqueue(side, body)
    side.facts |= {"ids": result["item_ids"], "batch": result["batch"]["batch_id"]}


def thousand_canceled(side: Side) -> None:
    thousand(side)
    side.ask("PUT", f"{QUEUE}/cancel_by_batch_ids", {"batch_ids": [side.facts["batch"]]})


def png(size: int, seed: int) -> bytes:
    gradient = Image.linear_gradient("L").resize((size, size))
    noise = Image.effect_noise((size, size), 12)
    image = Image.merge("RGB", [gradient, gradient.rotate(90), Image.blend(gradient, noise, 0.2)])
    image.putpixel((0, 0), (seed % 256, seed // 256 % 256, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def upload(side: Side, data: bytes) -> str:
    mark = uuid.uuid4().hex
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
    kind = f"multipart/form-data; boundary={mark}"
    path = "/api/v1/images/upload?image_category=general&is_intermediate=false"
    name: str = json.loads(side.ask("POST", path, body, **{"Content-Type": kind}))["image_name"]
    return name


def queue_rows(times: int) -> Iterator[Row]:
    clear = lambda side: side.ask("PUT", f"{QUEUE}/clear")  # noqa: E731
    seeds = list(range(1000))
    yield Row("enqueue 1, 1 node", times, lambda side, i: enqueue(side, one_node([i])))
    yield Row("enqueue 1, sd15", times, lambda side, i: enqueue(side, sd15_cached(side, [i])))
    few_times = max(times // 8, 3)
    yield Row("enqueue 1000 seeds, 1 node", few_times, lambda side, _: enqueue(side, one_node(seeds)), clear)
    yield Row("enqueue 1000 seeds, sd15", few_times, lambda side, _: enqueue(side, sd15_cached(side, seeds)), clear)

    def get(name: str, path: str, count: int = times) -> Row:
        def request(side: Side, i: int) -> object:
            facts = side.facts
            return side.ask("GET", QUEUE + path.format(batch=facts["batch"], id=facts["ids"][i % 100]))

        return Row(name, count, request, prepare)

    def prepare(side: Side) -> None:
        if "ids" not in side.facts:
            thousand(side)

    yield get("status, 1000 pending", "/status")
    yield get("list_all 1000", "/list_all", count=few_times)
    yield get("item_ids 1000", "/item_ids?order_dir=ASC")
    yield Row(
        "items_by_ids 50",
        times,
        lambda side, _: side.ask("POST", f"{QUEUE}/items_by_ids", {"item_ids": side.facts["ids"][:50]}),
        prepare,
    )
    yield get("b/status", "/b/{batch}/status")
    yield get("i/id", "/i/{id}")
    yield get("current", "/current")
    yield get("next", "/next")
    yield get("counts_by_destination", "/counts_by_destination?destination=bench")
    yield Row(
        "i/id/cancel", times, lambda side, i: side.ask("PUT", f"{QUEUE}/i/{side.facts['ids'][i]}/cancel"), prepare
    )
    canceled = lambda side, _: side.ask(  # noqa: E731
        "PUT", f"{QUEUE}/cancel_by_batch_ids", {"batch_ids": [side.facts["batch"]]}
    )
    yield Row("cancel_by_batch_ids 980", few_times, canceled, thousand)
    yield Row("prune 1000", few_times, lambda side, _: side.ask("PUT", f"{QUEUE}/prune"), thousand_canceled)
    yield Row("clear 1000", few_times, lambda side, _: side.ask("PUT", f"{QUEUE}/clear"), thousand)


def sd15_cached(side: Side, data: list[int]) -> dict[str, Any]:
    """Return the batch of `sd15` without asking the server for its model again."""
    if "sd15" not in side.facts:
        side.facts["sd15"] = sd15(side, [0])
    body: dict[str, Any] = side.facts["sd15"]
    body["batch"]["data"][0][0]["items"] = data
    return body


def other_rows(times: int) -> Iterator[Row]:
    def get(name: str, path: str, count: int = times) -> Row:
        return Row(name, count, lambda side, _: side.ask("GET", path))

    yield get("app/version", "/api/v1/app/version")
    yield get("openapi.json", "/openapi.json", max(times // 4, 3))
    yield get("workflows/ list", "/api/v1/workflows/?page=0&per_page=20")
    yield get("v2/models/", "/api/v2/models/")
    yield get("/ (UI index)", "/")
    yield get("app/config", "/api/v1/app/config")
    yield get("boards/ all", "/api/v1/boards/?all=true")


def gallery_rows(times: int) -> Iterator[Row]:
    small = [png(64, seed) for seed in range(8)]
    large = [png(512, seed) for seed in range(8)]

    def fill(side: Side) -> None:
        if "names" in side.facts:
            return
        for number in range(200):
            upload(side, small[number % 8])
        side.facts["big"] = [upload(side, data) for data in large]
        names = side.json("GET", f"/api/v1/images/names?{GALLERY}")["image_names"]
        side.facts |= {"names": names, "boards": []}

    def get(name: str, path: str, pick: str = "names") -> Row:
        def request(side: Side, i: int) -> object:
            candidates = side.facts[pick]
            return side.ask("GET", path.format(name=candidates[i % min(len(candidates), 64)]))

        return Row(name, times, request, fill)

    def create(side: Side, i: int) -> None:
        board = side.json("POST", f"/api/v1/boards/?board_name=b{i}")["board_id"]
        if len(side.facts["boards"]) < 30:
            side.facts["boards"].append(board)
        else:
            side.facts.setdefault("more", []).append(board)

    def only_thirty(side: Side) -> None:
        for board in side.facts.pop("more", []):
            side.ask("DELETE", f"/api/v1/boards/{board}")

    def add_to_board(side: Side, i: int) -> None:
        board = side.facts["boards"][i % len(side.facts["boards"])]
        body = {"board_id": board, "image_names": side.facts["names"][:100]}
        side.ask("POST", "/api/v1/board_images/batch", body)

    def by_names(side: Side, _: int) -> None:
        side.ask("POST", "/api/v1/images/images_by_names", {"image_names": side.facts["names"][:100]})

    yield get("images/ page 100", f"/api/v1/images/?limit=100&offset=0&{GALLERY}")
    yield get("images/ last page 100", f"/api/v1/images/?limit=100&offset=108&{GALLERY}")
    yield get("images/names", f"/api/v1/images/names?{GALLERY}")
    yield Row("images_by_names 100", times, by_names, fill)
    yield get("image dto", "/api/v1/images/i/{name}")
    yield get("image metadata", "/api/v1/images/i/{name}/metadata")
    yield get("thumbnail", "/api/v1/images/i/{name}/thumbnail", "big")
    yield get("full 512", "/api/v1/images/i/{name}/full", "big")
    yield get("gallery item_names", f"/api/v1/gallery/item_names?{GALLERY}")
    yield Row("upload 512", max(times // 2, 3), lambda side, i: upload(side, large[i % 8]), fill)
    yield Row("board create", max(times, 32), create, fill)
    yield Row("board_images/batch 100", max(times // 2, 3), add_to_board, only_thirty)
    yield get("boards/ all, 30 boards", "/api/v1/boards/?all=true")
    yield get("boards/{id}/image_names", "/api/v1/boards/{name}/image_names", "boards")


def generation_rows(times: int) -> Iterator[Row]:
    seeds = itertools.count(10_000)

    def run(side: Side, body: dict[str, Any]) -> None:
        enqueue(side, body)
        side.finish()

    def resume(side: Side) -> None:
        if not side.facts.get("runs"):
            side.ask("PUT", f"{QUEUE}/clear")
            side.ask("PUT", f"{QUEUE}/processor/resume")
            side.facts["runs"] = True
            run(side, sd15(side, [1, 2, 3]))

    def take_seeds(count: int) -> list[int]:
        return list(itertools.islice(seeds, count))

    few_times = max(times // 4, 3)
    yield Row("gen 1-node", times, lambda side, _: run(side, one_node(take_seeds(1))), resume, workers=True)
    yield Row("gen 20 x 1-node", few_times, lambda side, _: run(side, one_node(take_seeds(20))), resume, workers=True)
    yield Row("gen sd15", few_times, lambda side, _: run(side, sd15_cached(side, take_seeds(1))), resume, workers=True)
    yield Row(
        "gen 10 x sd15", few_times, lambda side, _: run(side, sd15_cached(side, take_seeds(10))), resume, workers=True
    )


GROUPS: dict[str, Callable[[int], Iterator[Row]]] = {
    "misc": other_rows,
    "queue": queue_rows,
    "gallery": gallery_rows,
    "gen": generation_rows,
}


@contextlib.contextmanager
def both_sides(other: Path) -> Iterator[tuple[Side, Side]]:
    """Start a server of this checkout and one of the other, whose workers are paused at first."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        started = []
        for name, checkout in (("ours", benchmark.ROOT), ("other", other)):
            side = Side(checkout, Path(folder) / name / "root")
            stack.callback(side.stop)
            started.append(side)
            side.ask("PUT", f"{QUEUE}/processor/pause")
            side.ask("GET", "/openapi.json")
        yield started[0], started[1]


def compare(other: Path, groups: list[str], rows: list[str], times: int) -> list[tuple[str, float, float]]:
    """Measure, print a table of the rows, and return (row, ours, the other's) in ms of CPU."""
    results = []
    print("| row | ours ms | other ms | ratio | allowed | reached |\n|---|---|---|---|---|---|", flush=True)
    with both_sides(other) as sides:
        for group in groups:
            for row in GROUPS[group](times):
                if rows and not any(part in row.name for part in rows):
                    continue
                clone_ms, other_ms = measure(row, sides)
                goal, ratio = MEASURED[row.name]
                allowed = min(goal / ratio, 9.99)
                goal_met = "yes" if clone_ms / other_ms <= allowed else "NO"
                print(
                    f"| {row.name} | {clone_ms:.2f} | {other_ms:.2f} | {clone_ms / other_ms:.2f} | {allowed:.2f} | {goal_met} |",
                    flush=True,
                )
                results.append((row.name, clone_ms, other_ms))
    ratios = [clone_ms / other_ms for _, clone_ms, other_ms in results]
    print(f"median ratio {statistics.median(ratios):.2f} of {len(ratios)} rows", file=sys.stderr)
    return results
