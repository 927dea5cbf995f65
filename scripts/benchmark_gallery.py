"""Measure galleries of 10,000 and 1,000,000 images: server CPU per request, against its limit.

Usage: .venv/bin/python scripts/benchmark_gallery.py [--sizes 10000,1000000] [--out FILE.json] [--keep FOLDER]

The rows are created in SQL, in a scratch root; only uploaded images have files. CPU times are those of the server
process, in ticks of 10 ms, so each request is repeated. `--keep` leaves the galleries in FOLDER and reuses them: a
million rows take some minutes to create.
"""

import argparse
import concurrent.futures
import io
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from benchmark import Running
from PIL import Image

from invokeclone.kit.sql import migrations

WORDS = (  # noqa: SIM905  (a list of words reads best as words)
    "red blue green circle square house zebra mountain river light dark portrait landscape detailed sharp vivid calm storm "
    "forest city car bird fish tree sun moon star glass metal wood stone water fire smoke cloud rain snow ice sand"
).split()
MODEL = (
    '{"key":"a9b8c7d6-1234-4f5e-8a9b-c0d1e2f3a4b5","hash":"blake3:0123456789abcdef0123456789abcdef","name":"Embedded Tiny",'
    '"base":"sd-1","type":"main"}'
)
GALLERY = {"is_intermediate": "false", "categories": "general"}
UPLOADERS = 16
LARGE_BOARD = "large"
SMALL_BOARDS = 50

GOALS = {
    10_000: {"page_first": 7, "page_middle": 7, "page_last": 7, "names": 12, "search_none": 30, "search_one": 30},
    1_000_000: {
        "page_first": 10,
        "page_middle": 50,
        "page_last": 10,
        "names": 700,
        "search_none": 30,
        "search_one": 30,
    },
}
EVERYWHERE = {"upload_512": 25, "board_100": 6, "version_p95_while_uploading_wall": 50}
"""Maximum cost of each, in ms."""


def fill(file: Path, count: int) -> None:
    """Create `count` images with half a kilobyte of metadata each, and 51 boards.

    Every twentieth is an intermediate; nine tenths are general, the others of the other categories; an eighth is on
    one board, another eighth on the fifty others.
    """
    migrations.upgrade(file)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA synchronous = OFF")
    connection.executemany(
        "INSERT INTO boards (board_id, board_name, created_at, updated_at) VALUES (?, ?, '2026-01-01 00:00:00.000', '')",
        [(name, name) for name in (LARGE_BOARD, *(f"small-{number}" for number in range(SMALL_BOARDS)))],
    )
    connection.execute("CREATE TEMP TABLE words (number INTEGER PRIMARY KEY, word TEXT)")
    connection.executemany("INSERT INTO words VALUES (?, ?)", enumerate(WORDS))
    word = "(SELECT word FROM words WHERE number = abs((x * {0} + {0} * 7) % {1}))"
    prompt = " || ' ' || ".join(word.format(step, len(WORDS)) for step in (2654435761, 40503, 97, 1013, 7919, 104729))
    connection.execute(
        f"""
        WITH RECURSIVE numbers (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM numbers WHERE x < {count}),
        named (x, h, at) AS MATERIALIZED (
            SELECT x, lower(hex(randomblob(16))), strftime('%Y-%m-%d %H:%M:%f', 1600000000 + x * 150.037, 'unixepoch') FROM numbers
        )
        INSERT INTO images (image_name, image_origin, image_category, width, height, is_intermediate, starred, has_workflow,
            board_id, created_at, updated_at, metadata)
        SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-' || substr(h, 17, 4) || '-' ||
            substr(h, 21) || '.png', CASE WHEN x % 80 = 70 THEN 'external' ELSE 'internal' END, CASE WHEN x % 10 THEN 'general'
            ELSE CASE x / 10 % 8 WHEN 7 THEN 'user' WHEN 5 THEN 'control' WHEN 3 THEN 'other' ELSE 'mask' END END, 512, 512,
            x % 20 = 0, x % 1000 = 0, 1,
            CASE x % 8 WHEN 1 THEN '{LARGE_BOARD}' WHEN 2 THEN 'small-' || (x / 8 % {SMALL_BOARDS}) END, at, at,
            '{{"generation_mode":"txt2img","positive_prompt":"' || {prompt} || ' number ' || x ||
            '","negative_prompt":"blurry, low quality, bad anatomy, watermark","width":512,"height":512,"seed":' ||
            abs(x * 2654435761 % 4294967296) || ',"rand_device":"cpu","cfg_scale":7.5,"steps":30,"scheduler":"euler_a",' ||
            '"clip_skip":0,"model":{MODEL},"app_version":"6.14.2"}}'
        FROM named
        """
    )
    connection.commit()
    connection.close()


def picture() -> bytes:
    """Return a PNG of 512x512 that does not compress well."""
    buffer = io.BytesIO()
    Image.effect_noise((512, 512), 40).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def upload(client: httpx.Client, png: bytes) -> str:
    answer = client.post(
        "/api/v1/images/upload",
        params={"image_category": "user", "is_intermediate": "true"},
        files={"file": ("x.png", png, "image/png")},
        data={"metadata": '{"positive_prompt": "uploaded"}'},
    )
    answer.raise_for_status()
    name: str = answer.json()["image_name"]
    return name


def measure(running: Running, count: int) -> dict[str, float]:
    client = running.client
    result: dict[str, float] = {}

    def cost(name: str, times: int, request: Callable[[], object]) -> None:
        request()
        before = running.cpu(whole_tree=False)
        for _ in range(times):
            request()
        result[name] = 1000 * (running.cpu(whole_tree=False) - before) / times

    def get(path: str, **query: object) -> httpx.Response:
        answer = client.get(f"/api/v1/{path}", params={**GALLERY, **query})
        answer.raise_for_status()
        return answer

    total = get("images/", limit=1).json()["total"]
    assert total == count * 9 // 10, total
    for name, offset in (("first", 0), ("middle", total // 2), ("last", total - 100)):
        cost(f"page_{name}", 40, lambda offset=offset: get("images/", limit=100, offset=offset))
    cost("gallery_page_middle", 40, lambda: get("gallery/items/", limit=100, offset=total // 2))
    cost("page_first_of_all", 40, lambda: client.get("/api/v1/images/", params={"limit": 100}))
    cost("page_middle_of_all", 40, lambda: client.get("/api/v1/images/", params={"limit": 100, "offset": count // 2}))
    repeats = 30 if count <= 10_000 else 3
    cost("names", repeats, lambda: get("images/names"))
    cost("gallery_names", repeats, lambda: get("gallery/item_names"))
    cost("gallery_page_first", 40, lambda: get("gallery/items/", limit=100))
    names = get("images/", limit=100).json()["items"]
    image_names = {"image_names": [item["image_name"] for item in names]}
    for name, term in (("none", "qqqxyz"), ("none_short", "qz"), ("one", f'number {count - 1}"')):
        page = get("images/", limit=100, search_term=term).json()
        assert page["total"] == (name == "one"), (term, page["total"])
        cost(f"search_{name}", 20, lambda term=term: get("images/", limit=100, search_term=term))
    cost("search_many", repeats, lambda: get("images/", limit=100, search_term="zebra"))
    cost("search_many_short", repeats, lambda: get("images/", limit=100, search_term="ze"))
    cost("search_all_short", repeats, lambda: get("images/", limit=100, search_term="e"))
    cost("page_first_oldest", 40, lambda: get("images/", limit=100, order_dir="ASC"))
    cost("page_middle_by_time", 40, lambda: get("images/", limit=100, offset=total // 2, starred_first="false"))
    cost("page_assets", 40, lambda: get("images/", limit=100, categories="user", board_id="none"))
    cost("page_board", 40, lambda: get("images/", limit=100, board_id=LARGE_BOARD, starred_first="false"))
    boards = [client.post("/api/v1/boards/", params={"board_name": name}).json()["board_id"] for name in "ab"]
    turns = itertools.cycle(boards)  # data that exists already costs less
    cost(
        "board_100",
        40,
        lambda: client.post("/api/v1/board_images/batch", json={"board_id": next(turns), **image_names}),
    )
    cost("boards", 40, lambda: client.get("/api/v1/boards/", params={"all": "true"}))
    for board in boards:
        client.delete(f"/api/v1/boards/{board}").raise_for_status()
    png = picture()
    cost("upload_512", 40, lambda: upload(client, png))
    result["version_p95_idle_wall"] = version_p95(running, 3)
    result["version_p95_while_uploading_wall"], result["uploads_per_s"] = while_uploading(running, png)
    memory = running.process.memory_info()
    result["own_memory_mib"] = (
        memory.rss - memory.shared
    ) / 2**20  # memory-mapped database pages do not count as the server's memory
    return result


def while_uploading(running: Running, png: bytes, seconds: float = 6) -> tuple[float, float]:
    """Return the 95th percentile of `GET app/version` in ms during 16 concurrent uploads, and uploads per second.

    Another process sends the requests, because this one's uploading threads would delay them.
    """
    end = time.perf_counter() + seconds

    def keep_uploading() -> int:
        count = 0
        with httpx.Client(base_url=running.client.base_url, timeout=60) as client:
            while time.perf_counter() < end:
                upload(client, png)
                count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(UPLOADERS) as pool:
        uploads = [pool.submit(keep_uploading) for _ in range(UPLOADERS)]
        p95 = version_p95(running, seconds)
        return p95, sum(upload_count.result() for upload_count in uploads) / seconds


def version_p95(running: Running, seconds: float = 6) -> float:
    """Return the 95th percentile of `GET app/version` in ms, requested by another process."""
    command = [sys.executable, __file__, "--probe", str(running.client.base_url), "--seconds", str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def probe(address: str, seconds: float) -> float:
    times = []
    end = time.perf_counter() + seconds
    with httpx.Client(base_url=address, timeout=60) as client:
        while time.perf_counter() < end:
            started = time.perf_counter()
            client.get("/api/v1/app/version").raise_for_status()
            times.append(1000 * (time.perf_counter() - started))
            time.sleep(0.02)
    return statistics.quantiles(times, n=20)[-1]


def gallery(folder: Path, count: int) -> Path:
    root = folder / str(count)
    file = root / "databases" / "invokeai.db"
    if not file.exists():
        file.parent.mkdir(parents=True)
        fill(file, count)
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,1000000")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(probe(options.probe, options.seconds))
        return
    os.environ.setdefault("INVOKEAI_LOG_LEVEL", "warning")
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in map(int, options.sizes.split(",")):
            running = Running(gallery(options.keep or Path(scratch), count))
            try:
                running.wait(running.answers)
                results[count] = measure(running, count)
            finally:
                running.stop()
            goals = GOALS.get(count, {}) | EVERYWHERE
            for name, value in results[count].items():
                ratio = f"{value / goals[name]:6.2f} of {goals[name]}" if name in goals else ""
                print(f"{count:9} {name:34} {value:10.2f} {ratio}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
