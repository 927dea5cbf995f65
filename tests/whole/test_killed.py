"""kill -9 of the server or its worker at random points while items run, images are uploaded and models are installed.

`KILLS` and `KILLS_SEED` in the environment set how many and which.
"""

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.applications import encode_image, sample_image
from tests.server_process import TERMINAL, Server
from tests.whole.test_survival import has_ended

KILLS = int(os.environ.get("KILLS", "100"))
SEED = int(os.environ.get("KILLS_SEED", "11"))


class Load:
    """What goes on while something is killed."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.uploaded: set[str] = set()
        self.items: set[int] = set()
        self.batch = server.batch(steps=2)
        self._count = 0

    def start(self) -> list[threading.Thread]:
        self._count += 1
        threads = [threading.Thread(target=work) for work in (self._upload, self._upload, self._enqueue, self._install)]
        for thread in threads:
            thread.start()
        return threads

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, timeout=60)

    def _upload(self) -> None:
        with contextlib.suppress(httpx.TransportError), self._client() as client:
            for _time in range(10):
                answer = client.post(
                    "/api/v1/images/upload",
                    params={"image_category": "user", "is_intermediate": "false"},
                    files={"file": ("x.png", encode_image(sample_image(size=(600, 400))), "image/png")},
                )
                assert answer.status_code == 201, answer.text
                self.uploaded.add(answer.json()["image_name"])

    def _enqueue(self) -> None:
        with contextlib.suppress(httpx.TransportError), self._client() as client:
            for _time in range(2):
                answer = client.post("/api/v1/queue/default/enqueue_batch", json=self.batch)
                assert answer.status_code == 200, answer.text
                self.items.update(answer.json()["item_ids"])

    def _install(self) -> None:
        source = self.folder / f"lora{self._count}.safetensors"
        names = [
            f"lora_unet_down_blocks_0_attentions_{n}_proj_in.lora_{side}.weight"
            for n in (0, 1)
            for side in ("up", "down")
        ]
        save_file({name: np.full((4, 4), self._count, np.float16) for name in names}, source)
        with contextlib.suppress(httpx.TransportError), self._client() as client:
            client.post("/api/v2/models/install", params={"source": str(source), "inplace": "false"}, json={})


def rows(server: Server, statement: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(server.root / "databases" / "invokeai.db", timeout=60)) as connection:
        return connection.execute(statement).fetchall()


def check(server: Server, load: Load) -> None:
    """Raise AssertionError unless what was confirmed is there and whole, and all items have ended once."""
    statuses = dict(rows(server, "SELECT item_id, status FROM session_queue"))
    assert load.items <= statuses.keys()
    assert set(statuses.values()) <= TERMINAL
    ends = rows(server, "SELECT count(*) FROM session_queue WHERE completed_at IS NULL")
    assert ends == [(0,)]
    folder = server.root / "outputs" / "images"
    names = {name for (name,) in rows(server, "SELECT image_name FROM images")}
    assert load.uploaded <= names
    for name in names:
        with Image.open(folder / name) as image:
            image.load()
        with Image.open(folder / "thumbnails" / f"{name[:-4]}.webp") as image:
            image.load()
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            image.load()
    for (path,) in rows(server, "SELECT path FROM models"):
        assert (server.root / "models" / path).exists()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kills_at_random_points_lose_nothing(make_server: Callable[[], Server], tmp_path: Path) -> None:
    rng = random.Random(SEED)
    sources = tmp_path / "sources"
    sources.mkdir()
    server = make_server().start()
    load = Load(server, sources)
    ends: dict[str, int] = {}
    for number in range(KILLS):
        worker = server.a_worker()
        threads = load.start()
        time.sleep(rng.uniform(0, 4))
        kills_server = rng.random() < 0.5
        if kills_server:
            server.kill()
            for thread in threads:
                thread.join()
            server.wait_for(lambda process=worker: has_ended(process), "the worker to end itself")  # type: ignore[misc]
            server.start()
        else:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGKILL)
            for thread in threads:
                thread.join()

        def all_ended() -> bool:
            return set(dict(rows(server, "SELECT item_id, status FROM session_queue")).values()) <= TERMINAL

        server.wait_for(all_ended, f"the items of kill {number}")
        check(server, load)
    for (status,) in rows(server, "SELECT status FROM session_queue"):
        ends[status] = ends.get(status, 0) + 1
    print(f"kills {KILLS}, seed {SEED}: items {ends}, uploads {len(load.uploaded)}")  # noqa: T201
    assert ends.get("completed", 0) > 0
