"""A server whose processes kill themselves (-9) at an operation of their own, and what has to be so after the next start."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.applications import encode_image, sample_image
from tests.faults import strays
from tests.server_process import TERMINAL, Server
from tests.whole.test_survival import has_ended

HOOK = Path(__file__).parent / "kill_points"
CLAIM = "claim"
WORKER_DIED = "invokeclone.server.app:_worker_died"
ENQUEUE, CANCEL = (f"invokeclone.queue.service:{name}" for name in ("enqueue", "cancel"))
RECOVER = "invokeclone.queue.claims:recover"
UPLOAD, DELETE = (f"invokeclone.images.service:{name}" for name in ("upload", "delete_many"))
INSTALL = "invokeclone.models.install.service:Installer.add"
DURING = (WORKER_DIED, ENQUEUE, CANCEL, RECOVER, UPLOAD, DELETE, INSTALL)
NODE = {"id": "a", "type": "blank_image", "width": 64, "height": 64, "use_cache": False}
GRAPH = {"id": "g", "nodes": {"a": NODE}, "edges": []}
PER_SERVER = 3
"""Deaths of its worker after which a server is started anew, as it waits longer before each restart."""


def distinct(trace: list[str]) -> list[str]:
    """Leave out operations that follow one of the same name: within a transaction they come to the same."""
    names = [point.rpartition(" #")[0] for point in trace]
    return [point for number, point in enumerate(trace) if number == 0 or names[number] != names[number - 1]]


class KilledServer:
    """Drives a server; `kill_at` has one of its processes die and everything put in order again."""

    def __init__(self, server: Server, **environment: str) -> None:
        self.server = server
        self.folder = server.root / "kill"
        self.folder.mkdir(parents=True)
        self.ends: dict[int, str] = {}
        self._deaths = 0
        self._environment = {
            **environment,
            "KILL_POINTS": str(self.folder),
            "KILL_DURING": " ".join(DURING),
            "PYTHONPATH": os.pathsep.join([str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }

    def start(self) -> None:
        self._deaths = 0
        self.server.start(**self._environment)

    def start_until_dead(self) -> None:
        """Start a server that dies before it answers."""
        with contextlib.suppress(AssertionError):
            self.start()
        self.await_death()

    def arm(self, during: str, point: str | None, victim: str, *, lasting: bool = False) -> None:
        order = {"point": point, "victim": victim, "lasting": lasting}
        part = self.folder / "part"
        part.write_text(json.dumps(order))
        part.rename(self.folder / f"arm {during}")

    def act(self, during: str, act: Callable[["KilledServer"], object]) -> None:
        """Act, once more if the function had been begun before it was armed, as an idle worker's claim may have been."""
        act(self)
        while (self.folder / f"arm {during}").exists():
            act(self)

    def trace(self) -> list[str]:
        """Return the operations that have counted since the last call."""
        path = self.folder / "trace"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def operations(self, during: str, act: Callable[["KilledServer"], object], **options: Any) -> list[str]:
        """Return the operations of an act in which nobody dies."""
        self.arm(during, None, "nobody", **options)
        self.act(during, act)
        return distinct(self.trace())

    def kill_at(
        self, during: str, point: str, act: Callable[["KilledServer"], object], victim: str = "server", **options: Any
    ) -> None:
        """Have `victim` die before an operation of `act`, put everything in order, and check it."""
        worker = self.server.a_worker()
        self.arm(during, point, victim, **options)
        with contextlib.suppress(httpx.TransportError, json.JSONDecodeError, Disconnected):
            self.act(during, act)
        if victim == "worker":
            self.server.wait_for(lambda: has_ended(worker), f"the death of the worker at {point}")
        else:
            self.await_death()
            self.server.wait_for(lambda: has_ended(worker), f"the end of the worker after {point}")
        assert self.trace()[-1] == point
        self._deaths += 1
        if victim == "server":
            self.start()
        elif self._deaths == PER_SERVER:
            self.check()
            self.server.stop()
            self.start()
        self.check()

    def await_death(self) -> None:
        process = self.server.process
        assert process is not None
        self.server.wait_for(lambda: process.poll() is not None, "the death of the server")
        assert process.returncode == -9, self.server.log.read_text()[-4000:]

    # What clients do

    def enqueue(self) -> int:
        return self.server.enqueue({"batch": {"graph": GRAPH, "runs": 1}})[0]

    def run(self) -> None:
        """Enqueue an item and wait until it has ended or the server is dead."""
        self.finished(self.enqueue())

    def finished(self, item_id: int) -> str:
        def done() -> str | None:
            self.check_alive()
            status = str(self.server.item(item_id)["status"])
            return status if status in TERMINAL else None

        return str(self.server.wait_for(done, f"item {item_id} to finish"))

    def check_alive(self) -> None:
        assert self.server.process is not None
        if self.server.process.poll() is not None:
            raise Disconnected

    def upload(self) -> str:
        answer = self.server.client.post(
            "/api/v1/images/upload",
            params={"image_category": "user", "is_intermediate": "false"},
            files={"file": ("x.png", encode_image(sample_image()), "image/png")},
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["image_name"])

    def delete(self) -> None:
        assert self.server.client.delete(f"/api/v1/images/i/{self.upload()}").status_code == 200

    def cancel(self) -> None:
        """Cancel an item that waits."""
        self.server.client.put("/api/v1/queue/default/processor/pause")
        item_id = self.enqueue()
        self.server.client.put(f"/api/v1/queue/default/i/{item_id}/cancel")
        self.server.client.put("/api/v1/queue/default/processor/resume")

    # What has to be so

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        path = self.server.root / "databases" / "invokeai.db"
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
            return connection.execute(statement).fetchall()

    def check(self) -> None:
        """Raise AssertionError unless the queue goes on and rows, counts and files agree."""
        assert self.finished(self.enqueue()) == "completed"
        items = self.rows("SELECT item_id, status FROM session_queue")
        for item_id, _status in items:
            self.finished(item_id)
        ends = dict(self.rows("SELECT item_id, status FROM session_queue"))
        assert {item_id: ends[item_id] for item_id in self.ends} == self.ends, "an item that had ended ended again"
        self.ends = ends
        assert self.rows("SELECT count(*) FROM session_queue WHERE completed_at IS NULL") == [(0,)]
        counted = self.server.client.get("/api/v1/queue/default/status").json()["queue"]
        for status in (*TERMINAL, "pending", "in_progress"):
            assert counted[status] == sum(end == status for end in ends.values()), status
        assert self.rows("PRAGMA integrity_check") == [("ok",)]
        assert self.rows("PRAGMA foreign_key_check") == []
        assert list((self.server.root / "databases" / "intents").glob("*")) == []
        names = {name for (name,) in self.rows("SELECT image_name FROM images")}
        thumbnails = {f"thumbnails/{Path(name).stem}.webp" for name in names}
        assert self.stored() == names | thumbnails
        assert strays(self.server.root) == []

    def stored(self) -> set[str]:
        """Return what is stored of images: names of files, and paths of thumbnails."""
        folder = self.server.root / "outputs" / "images"
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class Disconnected(Exception):
    """The server has died while a client waited."""
