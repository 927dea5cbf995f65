"""Running of parity cases on a server: models, uploads, graphs, images, PSNR."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.server_process import Server

HERE = Path(__file__).parent


def read_cases(name: str) -> dict[str, dict[str, Any]]:
    """Return the cases of a file."""
    cases: dict[str, dict[str, Any]] = json.loads((HERE / name).read_text())
    return cases


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(np.float64)


def golden(name: str) -> np.ndarray:
    return pixels(Image.open(HERE / "golden" / f"{name}.png"))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape:
        return 0.0
    error = float(np.mean((first - second) ** 2))
    return 99.0 if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


@contextmanager
def serve(root: Path, folder: Path) -> Iterator[Server]:
    """Serve the models in `folder`."""
    running = Server(root).start()
    model_folders = sorted(folder.iterdir())
    for model in model_folders:
        source: dict[str, str | bool] = {"source": str(model), "inplace": True}
        running.client.post("/api/v2/models/install", params=source, json={"name": model.name}).raise_for_status()
    running.wait_for(
        lambda: {model.name for model in model_folders} <= {model["name"] for model in models_of(running)},
        "the models",
    )
    yield running
    running.client.close()
    running.stop()


def models_of(server: Server) -> list[dict[str, Any]]:
    return list(server.client.get("/api/v2/models/").json()["models"])


def enqueue(server: Server, cases: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Enqueue every case; return the item of each. A test waits for its own, so that a busy machine has time for all."""
    identifiers = {
        f"@{model['name']}": {field: model[field] for field in ("key", "hash", "name", "base", "type")}
        for model in models_of(server)
    }
    uploads = {f"@{file.stem}": upload(server, file) for file in (HERE / "input").glob("*.png")}
    return {
        name: server.enqueue({"batch": {"graph": graph(case, identifiers | uploads), "runs": 1}})[0]
        for name, case in cases.items()
    }


def upload(server: Server, file: Path) -> str:
    query: dict[str, str | bool] = {"image_category": "user", "is_intermediate": True}
    files = {"file": (file.name, file.read_bytes(), "image/png")}
    return str(server.client.post("/api/v1/images/upload", params=query, files=files).json()["image_name"])


def graph(case: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """Return a case's graph, with the names of models and images that begin with @ resolved."""

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolve(inner) for key, inner in value.items()}
        return names[value] if isinstance(value, str) and value.startswith("@") else value

    def end(text: str) -> dict[str, str]:
        node, _, field = text.partition(".")
        return {"node_id": node, "field": field}

    edges = [dict(zip(("source", "destination"), map(end, edge.split(" > ")), strict=True)) for edge in case["edges"]]
    return {"id": "parity", "nodes": resolve(case["nodes"]), "edges": edges}


def result(server: Server, item_id: int) -> np.ndarray | str:
    item = server.finished(item_id)
    if item["status"] != "completed":
        return str(item["error_message"])
    image = server.output_image(item, "out")
    return pixels(Image.open(io.BytesIO(server.client.get("/" + image["image_url"]).content)))
