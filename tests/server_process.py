"""`invokeclone serve` as a process with its workers, and what drives it over HTTP; shared by tests/whole, adding and official_ui."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

HERE = Path(__file__).parent
TERMINAL = {"completed", "failed", "canceled"}
PATIENCE = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`invokeclone serve` on a root of its own; may be stopped, killed and started again on the same root."""

    def __init__(self, root: Path, command: list[str] | None = None) -> None:
        self.root = root
        self.command = command or ["-m", "invokeclone", "serve"]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = root.parent / f"{root.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def start(self, **environment: str) -> "Server":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, "--root", str(self.root), "--port", str(self.port)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "INVOKEAI_DEVICE": "cpu", "INVOKEAI_PRECISION": "float32", **environment},
            )
        self.wait_for(self.answers, "the server to answer")
        return self

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/api/v1/app/version").status_code == 200
        return False

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if result := condition():
                return result
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}\n{self.log.read_text()[-4000:]}")

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return [
                child
                for child in psutil.Process(self.process.pid).children(recursive=True)
                if "invokeclone.worker" in " ".join(child.cmdline())
            ]
        return []

    def a_worker(self) -> psutil.Process:
        return self.wait_for(self.workers, "a worker")[0]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout=PATIENCE)

    def model(self) -> dict[str, Any]:
        models = self.client.get("/api/v2/models/").json()["models"]
        return next(model for model in models if model["name"] == "Embedded Tiny")

    def batch(self, prompt: str = "a red circle on a blue background", seed: int = 1, **fields: Any) -> dict[str, Any]:
        """Return InvokeAI's own text-to-image batch with the embedded model; `fields` go to the denoise node."""
        body: dict[str, Any] = json.loads((HERE / "whole" / "text_to_image.json").read_text())
        graph = body["batch"]["graph"]
        identifier = {name: self.model()[name] for name in ("key", "hash", "name", "base", "type")}
        graph["nodes"]["sd1_model_loader"]["model"] = graph["nodes"]["core_metadata"]["model"] = identifier
        graph["nodes"]["denoise_latents"].update(fields)
        body["batch"]["data"] = [
            [{"node_path": "seed", "field_name": "value", "items": [seed]}],
            [{"node_path": "positive_prompt", "field_name": "value", "items": [prompt]}],
        ]
        return body

    def enqueue(self, body: dict[str, Any]) -> list[int]:
        answer = self.client.post("/api/v1/queue/default/enqueue_batch", json=body)
        assert answer.status_code == 200, answer.text
        return sorted(answer.json()["item_ids"])

    def item(self, item_id: int) -> dict[str, Any]:
        answer = self.client.get(f"/api/v1/queue/default/i/{item_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def finished(self, item_id: int) -> dict[str, Any]:
        def done() -> dict[str, Any] | None:
            item = self.item(item_id)
            return item if item["status"] in TERMINAL else None

        return dict(self.wait_for(done, f"item {item_id} to finish"))

    def output_image(self, item: dict[str, Any], node: str = "canvas_output") -> dict[str, Any]:
        session = item["session"]
        # The official UI's node ids have random ends: canvas_output:iOoq4hJ01g.
        prepared_ids = {
            source.split(":")[0]: prepared for source, prepared in session["source_prepared_mapping"].items()
        }
        (prepared,) = prepared_ids[node]
        name = session["results"][prepared]["image"]["image_name"]
        return dict(self.client.get(f"/api/v1/images/i/{name}").json())

    def output_metadata(self, item: dict[str, Any], node: str = "canvas_output") -> dict[str, Any]:
        name = self.output_image(item, node)["image_name"]
        return dict(self.client.get(f"/api/v1/images/i/{name}/metadata").json())

    def output_pixels(self, item: dict[str, Any]) -> bytes:
        from PIL import Image

        png = self.client.get("/" + self.output_image(item)["image_url"]).content
        with Image.open(io.BytesIO(png)) as image:
            return image.convert("RGB").tobytes()


@contextlib.contextmanager
def serving(root: Path, **environment: str) -> Iterator[Server]:
    """Serve a root for a while."""
    server = Server(root).start(**environment)
    try:
        yield server
    finally:
        server.client.close()
        server.stop()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the embedded model to all tests that leave no item running and no setting changed."""
    with serving(tmp_path_factory.mktemp("shared") / "root") as server:
        server.wait_for(lambda: server.client.get("/api/v2/models/").json()["models"], "the embedded model")
        yield server
