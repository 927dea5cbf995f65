"""What the tests of ComfyUI's dialect share: workflows as clients send them, and a client that reads the socket."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

PATIENCE = 120
MODEL = "Embedded Tiny"


def text_to_image(prompt: str = "a red circle on a white background", seed: int = 1, **latent: Any) -> dict[str, Any]:
    """Open WebUI's default workflow, for the embedded model."""
    return {
        "3": {
            "inputs": {
                "seed": seed,
                "steps": 20,
                "cfg": 8,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
            "class_type": "KSampler",
            "_meta": {"title": "KSampler"},
        },
        "4": {"inputs": {"ckpt_name": MODEL}, "class_type": "CheckpointLoaderSimple"},
        "5": {"inputs": {"width": 128, "height": 128, "batch_size": 1, **latent}, "class_type": "EmptyLatentImage"},
        "6": {"inputs": {"text": prompt, "clip": ["4", 1]}, "class_type": "CLIPTextEncode"},
        "7": {"inputs": {"text": "", "clip": ["4", 1]}, "class_type": "CLIPTextEncode"},
        "8": {"inputs": {"samples": ["3", 0], "vae": ["4", 2]}, "class_type": "VAEDecode"},
        "9": {"inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}, "class_type": "SaveImage"},
    }


def image_to_image(
    name: str, prompt: str = "a blue circle on a white background", denoise: float = 1.0
) -> dict[str, Any]:
    """Return an edit: the sampler begins with a picture."""
    workflow = text_to_image(prompt)
    workflow["5"] = {"inputs": {"pixels": ["10", 0], "vae": ["4", 2]}, "class_type": "VAEEncode"}
    workflow["10"] = {"inputs": {"image": name}, "class_type": "LoadImage"}
    workflow["3"]["inputs"]["denoise"] = denoise
    return workflow


class Comfy:
    """A client as Open WebUI's: it listens, posts, reads to the end, and fetches."""

    def __init__(self, http: httpx.Client, prefix: str = "", key: str = "") -> None:
        self.http = http
        self.prefix = prefix
        self.client_id = str(uuid.uuid4())
        self.headers = {"Authorization": f"Bearer {key}".rstrip()}

    @contextmanager
    def listening(self, **options: Any) -> Iterator[ClientConnection]:
        url = str(self.http.base_url).replace("http", "ws", 1).rstrip("/")
        address = f"{url}{self.prefix}/ws?clientId={self.client_id}"
        with connect(address, additional_headers=self.headers, proxy=None, **options) as socket:
            yield socket

    def post(self, workflow: Any, **fields: Any) -> httpx.Response:
        body = {"prompt": workflow, "client_id": self.client_id, **fields}
        return self.http.post(f"{self.prefix}/prompt", json=body, headers=self.headers)

    def enqueue(self, workflow: Any, **fields: Any) -> str:
        answer = self.post(workflow, **fields)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["node_errors"] == {}
        return str(answer.json()["prompt_id"])

    def history(self, prompt_id: str) -> dict[str, Any]:
        answer = self.http.get(f"{self.prefix}/history/{prompt_id}", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def run(self, workflow: Any) -> dict[str, Any]:
        """Run a workflow to its end; returns its entry in the history."""
        with self.listening() as socket:
            prompt_id = self.enqueue(workflow)
            frames_to_end(socket, prompt_id)
        return dict(self.history(prompt_id)[prompt_id])

    def pictures(self, entry: dict[str, Any], node: str = "9") -> list[bytes]:
        return [self.view(**image) for image in entry["outputs"][node]["images"]]

    def view(self, **parameters: str) -> bytes:
        answer = self.http.get(f"{self.prefix}/view", params=parameters, headers=self.headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("image/")
        return answer.content

    def upload(self, data: bytes, path: str = "/upload/image", name: str = "a.png", **fields: str) -> str:
        """Upload a picture; returns how a LoadImage node names it."""
        answer = self.http.post(
            f"{self.prefix}{path}",
            files={"image": (name, data, "image/png")},
            data={"type": "input", **fields},
            headers=self.headers,
        )
        assert answer.status_code == 200, answer.text
        uploaded = answer.json()
        assert uploaded["type"] == fields.get("type", "input")
        return "/".join(part for part in (uploaded["subfolder"], uploaded["name"]) if part)


def frames_to_end(socket: ClientConnection, prompt_id: str) -> list[dict[str, Any] | bytes]:
    """Read frames as Open WebUI does: up to the one that closes the prompt."""
    frames: list[dict[str, Any] | bytes] = []
    while True:
        frame = socket.recv(timeout=PATIENCE)
        if isinstance(frame, bytes):
            frames.append(frame)
            continue
        message = json.loads(frame)
        frames.append(message)
        data = message["data"]
        if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
            return frames


def kinds(frames: list[dict[str, Any] | bytes]) -> list[str]:
    """Return the types of messages in their order, each run of one type once."""
    names = [frame["type"] for frame in frames if isinstance(frame, dict)]
    return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]
