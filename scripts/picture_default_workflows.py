"""Generate the thumbnails of the default workflows: python scripts/picture_default_workflows.py.

A temporary server runs each workflow with the embedded model; the results are combined into 256 by 256 pixels. Run it
again when a workflow or the model has changed.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

from invokeclone.graph.invocations import registry
from invokeclone.workflows import conversion

FOLDER = Path(__file__).parent.parent / "invokeclone" / "workflows" / "defaults"
SIDE, HALF, INSET, FRAME = 256, 128, 88, 3
SEED = 7
PATIENCE_S = 120
PORT = 9317


class Server:
    """A running server."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=PATIENCE_S)

    def wait(self) -> None:
        """Wait until it responds."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._client.get("/api/v1/app/version")
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def upload(self, picture: Image.Image) -> str:
        """Upload an image and return its name."""
        file = BytesIO()
        picture.save(file, "PNG")
        sent = {"file": ("start.png", file.getvalue(), "image/png")}
        query = {"image_category": "user", "is_intermediate": "true"}
        answer = self._client.post("/api/v1/images/upload", files=sent, params=query).raise_for_status()
        return str(answer.json()["image_name"])

    def run(self, graph: dict[str, Any]) -> list[Image.Image]:
        """Run a graph and return the outputs of its `l2i` nodes, in order."""
        body = {"batch": {"graph": graph, "runs": 1}}
        queue = "/api/v1/queue/default"
        (item_id,) = self._client.post(f"{queue}/enqueue_batch", json=body).raise_for_status().json()["item_ids"]
        while True:
            item = self._client.get(f"{queue}/i/{item_id}").json()
            if item["status"] not in ("pending", "in_progress"):
                break
            time.sleep(0.1)
        if item["status"] != "completed":
            raise RuntimeError(item.get("error_message"))
        session = item["session"]
        names = [session["results"][copy]["image"]["image_name"] for copy in session["source_prepared_mapping"]["l2i"]]
        return [self._picture(name) for name in names]

    def _picture(self, name: str) -> Image.Image:
        data = self._client.get(f"/api/v1/images/i/{name}/full").raise_for_status().content
        return Image.open(BytesIO(data)).convert("RGB")


@contextmanager
def server() -> Iterator[Server]:
    """Start a server on a temporary folder."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "invokeclone", "serve", "--root", root, "--port", str(PORT)]
        with subprocess.Popen(command) as process:
            try:
                started = Server(f"http://127.0.0.1:{PORT}")
                started.wait()
                yield started
            finally:
                process.terminate()


def graphs(file: Path, inputs: dict[tuple[str, str], Any]) -> list[dict[str, Any]]:
    """Return the graphs of a workflow, one per value of its batch, with `inputs` replacing its own."""
    workflow = json.loads(file.read_text(encoding="utf-8"))
    drawing = conversion.read(workflow["nodes"], workflow["edges"])
    batches: dict[str, Any] = {
        node_id: node.values()[conversion.BATCHES[node.type]]
        for node_id, node in drawing.nodes.items()
        if node.type in conversion.BATCHES
    }
    count = max((len(values) for values in batches.values()), default=1)
    seed = {("rand_int", "low"): SEED, ("rand_int", "high"): SEED + 1}
    graph_inputs = {location: value for location, value in (seed | inputs).items() if location[0] in drawing.nodes}
    return [
        conversion.graph(drawing, {node_id: values[index] for node_id, values in batches.items()}, graph_inputs)
        for index in range(count)
    ]


def start_picture() -> Image.Image:
    """Draw the initial image of image to image."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(picture).rectangle((64, 64, 192, 192), fill="green")
    return picture


def in_corner(picture: Image.Image, start: Image.Image) -> Image.Image:
    """Paste `start`, small and framed, into a corner of `picture`."""
    result = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    result.paste("white", (0, SIDE - INSET - FRAME, INSET + FRAME, SIDE))
    result.paste(start.resize((INSET, INSET), Image.Resampling.LANCZOS), (0, SIDE - INSET))
    return result


def in_square(pictures: list[Image.Image]) -> Image.Image:
    """Combine four images into one."""
    result = Image.new("RGB", (SIDE, SIDE))
    for index, picture in enumerate(pictures):
        small = picture.resize((HALF, HALF), Image.Resampling.LANCZOS)
        result.paste(small, (index % 2 * HALF, index // 2 * HALF))
    return result


def main() -> None:
    """Write all thumbnails."""
    registry.discover()
    with server() as running:
        for file in sorted(FOLDER.glob("*.json")):
            if file.stem.startswith("image_to_image"):
                start = start_picture()
                inputs = {("img_resize", "image"): {"image_name": running.upload(start)}}
                (picture,) = run_all(running, graphs(file, inputs))
                image = in_corner(picture, start)
            elif file.stem.startswith("text_to_image"):
                (picture,) = run_all(running, graphs(file, {}))
                image = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            else:
                image = in_square(run_all(running, graphs(file, {})))
            image.save(FOLDER / f"{file.stem}.webp", quality=80, method=6)


def run_all(running: Server, batch: list[dict[str, Any]]) -> list[Image.Image]:
    """Run graphs and return all images."""
    return [picture for graph in batch for picture in running.run(graph)]


if __name__ == "__main__":
    main()
