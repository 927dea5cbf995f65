"""A server and its worker whose images are in a bucket."""

from pathlib import Path

import pytest

from tests.applications import decode_image, encode_image, sample_image
from tests.s3_server import CREDENTIALS, S3Service
from tests.server_process import Server
from tests.whole.killing import CLAIM, DELETE, KilledServer
from tests.whole.test_killed_items import RECORDED

NODES = {
    "blank": {"id": "blank", "type": "blank_image", "width": 64, "height": 48, "use_cache": False},
    "blur": {"id": "blur", "type": "img_blur", "is_intermediate": False},
}
EDGE = {"source": {"node_id": "blank", "field": "image"}, "destination": {"node_id": "blur", "field": "image"}}


def environment(s3: S3Service, bucket: str) -> dict[str, str]:
    """Return the environment of a server whose images are in a bucket."""
    return {"INVOKEAI_STORAGE_URL": f"s3://{bucket}", "INVOKEAI_STORAGE_ENDPOINT": s3.endpoint, **CREDENTIALS}


def check_comfyui(server: Server) -> None:
    """Upload an image through ComfyUI's API and read it: as it is, encoded again, and with a mask."""
    data = encode_image(sample_image())
    upload = server.client.post("/upload/image", files={"image": ("ä.png", data, "image/png")})
    assert upload.json()["name"] == "ä.png"
    shown = server.client.get("/view", params={"filename": "ä.png", "type": "input"})
    assert decode_image(shown.content).tobytes() == sample_image().tobytes()
    assert shown.headers["content-disposition"] == "inline; filename*=UTF-8''%C3%A4.png"
    preview = server.client.get("/view", params={"filename": "ä.png", "type": "input", "preview": "webp;90"})
    assert decode_image(preview.content).format == "WEBP"
    assert server.client.get("/view", params={"filename": "none.png", "type": "input"}).status_code == 404


@pytest.mark.slow
def test_a_run(tmp_path: Path, s3: S3Service, bucket: str) -> None:
    server = Server(tmp_path / "root")
    server.start(**environment(s3, bucket))
    try:
        body = {"batch": {"graph": {"id": "g", "nodes": NODES, "edges": [EDGE]}, "runs": 1}}
        (item_id,) = server.enqueue(body)
        item = server.finished(item_id)
        assert item["status"] == "completed", item
        image = server.output_image(item, "blur")
        full = server.client.get("/" + image["image_url"])
        assert decode_image(full.content).size == (64, 48)
        check_comfyui(server)
        names = {entry["image_name"] for entry in server.client.get("/api/v1/images/").json()["items"]}
        assert {key for key in s3.keys(bucket) if key.endswith(".png")} >= {f"images/{name}" for name in names}
        assert not list((server.root / "outputs").rglob("*.png"))
        server.client.post("/api/v1/images/delete", json={"image_names": sorted(names)}).raise_for_status()
        server.client.delete("/api/v1/images/intermediates").raise_for_status()
        assert s3.keys(bucket) == set()
    finally:
        server.client.close()
        server.stop()


class KilledOnS3(KilledServer):
    """A server that dies, with its images in a bucket."""

    def __init__(self, server: Server, s3: S3Service, bucket: str) -> None:
        super().__init__(server, **environment(s3, bucket))
        self.stored = lambda: {key.removeprefix("images/") for key in s3.keys(bucket)}  # type: ignore[method-assign]


@pytest.mark.slow
def test_kills_between_objects_and_records(tmp_path: Path, s3: S3Service, bucket: str) -> None:
    server = Server(tmp_path / "root")
    killed = KilledOnS3(server, s3, bucket)
    try:
        killed.start()
        killed.run()
        killed.kill_at(CLAIM, RECORDED, KilledServer.run, "worker")
        killed.kill_at(CLAIM, RECORDED, KilledServer.run, "server")
        killed.kill_at(DELETE, "SQL after COMMIT #1", KilledServer.delete)
        assert set(killed.ends.values()) == {"completed", "failed", "canceled"}
    finally:
        server.client.close()
        server.stop()


@pytest.mark.slow
def test_a_storage_that_cannot_be_used_is_one_line(tmp_path: Path, s3: S3Service) -> None:
    server = Server(tmp_path / "root")
    with pytest.raises(AssertionError):  # it ends before it answers
        server.start(**environment(s3, "missing"))
    server.client.close()
    assert server.process is not None
    assert server.process.wait(10) == 2
    (line,) = server.log.read_text().splitlines()
    assert line.startswith("invokeclone: the storage s3://missing cannot be used: the bucket does not exist; check")
