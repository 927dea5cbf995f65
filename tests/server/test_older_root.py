"""A root that an earlier version wrote: `data/root-2026-11-29.tar.gz` is one of the version before families were rebuilt.

It has a setting, the embedded model's record with the path of that version's package, a finished item with its image, and three
pending ones: InvokeAI's own graph, one of `enqueue_prompt`, and a workflow of ComfyUI's.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import Server

ROOT = Path(__file__).parent / "data" / "root-2026-11-29.tar.gz"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with tarfile.open(ROOT) as archive:
        archive.extractall(tmp_path, filter="data")
    running = Server(tmp_path / "root").start()
    yield running
    running.client.close()
    running.stop()


def test_an_older_root_opens_and_its_pending_items_run(server: Server) -> None:
    assert server.client.get("/api/v1/app/runtime_config").json()["config"]["max_queue_size"] == 123
    path = Path(server.model()["path"])
    assert path.is_dir(), "the record has followed the package"
    finished = server.item(1)
    assert finished["status"] == "completed"
    data = server.client.get("/" + server.output_image(finished)["image_url"])
    assert data.headers["content-type"] == "image/png"
    for item_id in (2, 3, 4):
        item = server.finished(item_id)
        assert item["status"] == "completed", item["error_traceback"]
    assert server.output_image(server.item(3))["width"] == 64
    (history,) = server.client.get("/history").json().values()
    assert history["outputs"]["9"]["images"], "ComfyUI's clients find the image of their workflow"
