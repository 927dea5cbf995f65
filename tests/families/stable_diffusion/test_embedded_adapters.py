"""The LoRA and the ControlNet made for the embedded model (tests/data/embedded_adapters), by measured colors and locations."""

import base64
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scripts.embedded import judge
from tests.server_process import Server
from tests.shims.comfyui import Comfy, text_to_image

ADAPTERS = Path(__file__).parents[2] / "data" / "embedded_adapters"
PURPLE = np.array([130, 42, 176])
NEAR = 60.0
"""Largest distance in RGB of a figure's median color from the LoRA's; the nearest other named color, gray, is 102 away."""
PROMPTS = (
    ("a red circle on a blue background", 1),
    ("a green star on a white background", 2),
    ("a yellow heart on a black background", 3),
    ("an orange square on a gray background", 4),
)
PLACED_PROMPT = "a red circle on a white background"
SPOTS = ((0.3, 0.3), (0.7, 0.3), (0.3, 0.7), (0.7, 0.7))
"""Centers of silhouettes, x and y from 0 to 1."""
PARTS = {"lora": "color.safetensors", "controlnet": "placement"}
MIB = 2**20

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with both adapters. Their base is stated: by the width of their text, the tiny model's, none is recognized."""
    running = Server(tmp_path_factory.mktemp("adapters") / "root").start()
    for kind, file in PARTS.items():
        query = {"source": str(ADAPTERS / file), "inplace": True}
        body = {"name": kind, "base": "sd-1"}
        running.client.post("/api/v2/models/install", params=query, json=body).raise_for_status()
    running.wait_for(lambda: set(PARTS) <= set(identifiers(running)), "the adapters")
    yield running
    running.client.close()
    running.stop()


def identifiers(server: Server) -> dict[str, dict[str, Any]]:
    models = server.client.get("/api/v2/models/").json()["models"]
    return {
        model["name"]: {field: model[field] for field in ("key", "hash", "name", "base", "type")} for model in models
    }


def edge(source: str, destination: str) -> dict[str, Any]:
    ends = (dict(zip(("node_id", "field"), end.split("."), strict=True)) for end in (source, destination))
    return dict(zip(("source", "destination"), ends, strict=True))


def with_lora(server: Server, body: dict[str, Any], weight: float) -> dict[str, Any]:
    """Put the LoRA between the loader and what uses its UNet and text encoder."""
    graph = body["batch"]["graph"]
    node = {"type": "lora_loader", "id": "lora", "lora": identifiers(server)["lora"], "weight": weight}
    graph["nodes"]["lora"] = node
    for link in graph["edges"]:
        if link["source"]["node_id"] == "sd1_model_loader" and link["source"]["field"] in ("unet", "clip"):
            link["source"]["node_id"] = "lora"
    graph["edges"] += [edge(f"sd1_model_loader.{part}", f"lora.{part}") for part in ("unet", "clip")]
    return body


def with_controlnet(server: Server, body: dict[str, Any], image_name: str, weight: float) -> dict[str, Any]:
    graph = body["batch"]["graph"]
    graph["nodes"]["controlnet"] = {
        "type": "controlnet",
        "id": "controlnet",
        "image": {"image_name": image_name},
        "control_model": identifiers(server)["controlnet"],
        "control_weight": weight,
    }
    graph["edges"].append(edge("controlnet.control", "denoise_latents.control"))
    return body


def silhouette(server: Server, x: float, y: float, radius: float = 0.2) -> str:
    """Upload a white disc on black and return the image's name."""
    image = Image.new("RGB", (128, 128))
    box = [side * 128 for side in (x - radius, y - radius, x + radius, y + radius)]
    ImageDraw.Draw(image).ellipse(box, fill="white")
    png = io.BytesIO()
    image.save(png, "PNG")
    query = {"image_category": "control", "is_intermediate": True}
    files = {"file": ("disc.png", png.getvalue(), "image/png")}
    return str(server.client.post("/api/v1/images/upload", params=query, files=files).json()["image_name"])


def images(server: Server, bodies: list[dict[str, Any]]) -> list[np.ndarray]:
    """Run batches of one item in their order and return the images, (128, 128, 3) from 0 to 255."""
    items = [server.finished(item_id) for (item_id,) in [server.enqueue(body) for body in bodies]]
    assert [item["error_message"] for item in items if item["status"] != "completed"] == []
    return [
        np.frombuffer(server.output_pixels(item), np.uint8).reshape(128, 128, 3).astype(np.float32) for item in items
    ]


def batch(server: Server, prompt: str, seed: int) -> dict[str, Any]:
    return server.batch(prompt, seed, steps=8, cfg_scale=4.0)


def figure_color(image: np.ndarray) -> np.ndarray:
    return judge.object_colour(image, judge.background_colour(image))


def figure_center(image: np.ndarray) -> np.ndarray:
    """Return the median x and y, from 0 to 1, of what is not background."""
    rows, columns = np.nonzero(judge.silhouette(image, judge.background_colour(image)) > judge.FAINT)
    return np.array([np.median(columns), np.median(rows)]) / len(image)


def test_the_files_are_small_and_in_half_precision() -> None:
    from safetensors import safe_open

    files = sorted(ADAPTERS.rglob("*.safetensors"))
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) < 2e6
    for file in files:
        with safe_open(file, framework="np") as weights:
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118


@pytest.fixture(scope="module")
def colored(server: Server) -> dict[float | None, list[np.ndarray]]:
    """Images of all prompts by the LoRA's weight, made in turns; None: without, before the others."""
    return {
        weight: images(
            server,
            [
                body if weight is None else with_lora(server, body, weight)
                for body in (batch(server, *prompt) for prompt in PROMPTS)
            ],
        )
        for weight in (None, 1.0, 0.75, 0.0)
    }


def test_the_lora_gives_figures_its_color_whatever_the_prompt_names(colored: dict[Any, list[np.ndarray]]) -> None:
    for plain, image in zip(colored[None], colored[1.0], strict=True):
        assert np.linalg.norm(figure_color(plain) - PURPLE) > 2 * NEAR
        assert np.linalg.norm(figure_color(image) - PURPLE) < NEAR
        backgrounds = judge.background_colour(plain), judge.background_colour(image)
        assert judge.nearest_colour(backgrounds[0]) == judge.nearest_colour(backgrounds[1])


def test_a_smaller_weight_gives_a_color_in_between(colored: dict[Any, list[np.ndarray]]) -> None:
    away = {
        weight: np.mean([np.linalg.norm(figure_color(image) - PURPLE) for image in outputs])
        for weight, outputs in colored.items()
    }
    assert away[1.0] < away[0.75] < away[None]


def test_zero_weight_disables_the_lora(colored: dict[Any, list[np.ndarray]]) -> None:
    for plain, image in zip(colored[None], colored[0.0], strict=True):
        assert np.array_equal(plain, image)


def test_an_item_after_a_lora_run_is_unaffected(server: Server, colored: dict[Any, list[np.ndarray]]) -> None:
    bodies = [batch(server, *PROMPTS[0]) for _ in range(3)]
    with_lora(server, bodies[1], 1.0)
    for body in bodies:  # the invocation cache would return the earlier results
        body["batch"]["graph"]["nodes"]["denoise_latents"]["use_cache"] = False
    before, changed, after = images(server, bodies)
    assert np.array_equal(before, colored[None][0])
    assert np.array_equal(changed, colored[1.0][0])
    assert np.array_equal(after, before)


def test_the_controlnet_places_the_figure(server: Server) -> None:
    bodies = [
        with_controlnet(server, batch(server, PLACED_PROMPT, seed), silhouette(server, *spot), 1.0)
        for seed, spot in enumerate(SPOTS)
    ]
    for spot, image in zip(SPOTS, images(server, bodies), strict=True):
        assert np.abs(figure_center(image) - spot).max() < 0.08
        assert judge.nearest_colour(figure_color(image)) == "red"


def test_zero_weight_disables_the_controlnet(server: Server) -> None:
    name = silhouette(server, *SPOTS[0])
    bodies = [batch(server, PLACED_PROMPT, 0), with_controlnet(server, batch(server, PLACED_PROMPT, 0), name, 0.0)]
    plain, image = images(server, bodies)
    assert np.array_equal(plain, image)
    assert np.abs(figure_center(plain) - SPOTS[0]).max() > 0.1, "without control the figure is elsewhere"


def test_lora_and_controlnet_together_set_color_and_location(server: Server) -> None:
    prompt, seed = PROMPTS[1]
    body = with_controlnet(server, batch(server, prompt, seed), silhouette(server, *SPOTS[3]), 1.0)
    (image,) = images(server, [with_lora(server, body, 1.0)])
    assert np.abs(figure_center(image) - SPOTS[3]).max() < 0.08
    assert np.linalg.norm(figure_color(image) - PURPLE) < NEAR


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_items_with_loras_switching_on_and_off(
    server: Server, record_property: Callable[[str, object], None]
) -> None:
    """Runs 200 items, every other one with the LoRA, at weights that differ; the worker keeps nothing of them.

    The items without it have one seed: their images are equal bit for bit, so the weights are too.
    """
    resident, plain = {}, []
    for number in range(1, 201):
        switched_on = number % 2 == 0
        body = server.batch(PROMPTS[0][0], number if switched_on else 1, steps=1)
        body["batch"]["graph"]["nodes"]["denoise_latents"]["use_cache"] = False
        if switched_on:
            with_lora(server, body, number / 200)
        (image,) = images(server, [body])
        resident[number] = server.a_worker().memory_info().rss
        if not switched_on:
            plain.append(image)
    figures = {number: resident[number] // MIB for number in (1, *range(25, 201, 25))}
    record_property("MiB of the worker by item", figures)
    assert all(np.array_equal(image, plain[0]) for image in plain)
    assert resident[200] - resident[50] < 10 * MIB, figures


# Through every API

MODEL, WEIGHT = "Embedded Tiny", 0.75
SETTINGS = {"seed": PROMPTS[0][1], "steps": 8, "cfg_scale": 4.0, "width": 128, "height": 128}


def enqueued(server: Server, **request: Any) -> np.ndarray:
    """Return the image of `enqueue_prompt` with the LoRA."""
    body = {"prompt": PROMPTS[0][0], "loras": [{"model": "lora", "weight": WEIGHT}]} | request
    answer = server.client.post("/api/v1/queue/default/enqueue_prompt", json=body)
    assert answer.status_code == 200, answer.text
    item = server.finished(int(answer.json()["item_ids"][0]))
    assert item["status"] == "completed", item["error_traceback"]
    return np.frombuffer(server.output_pixels(item), np.uint8).reshape(128, 128, 3)


def decoded(text: str | bytes) -> np.ndarray:
    data = base64.b64decode(text) if isinstance(text, str) else text
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def answered(server: Server, path: str, body: dict[str, Any]) -> Any:
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def from_comfyui(server: Server, control_image: str | None = None) -> np.ndarray:
    workflow = text_to_image(*PROMPTS[0])
    workflow["3"]["inputs"] |= {"steps": 8, "cfg": 4.0, "model": ["20", 0]}
    strengths = {"strength_model": WEIGHT, "strength_clip": WEIGHT}
    workflow["20"] = {"class_type": "LoraLoader", "inputs": {"model": ["4", 0], "clip": ["4", 1], "lora_name": "lora"}}
    workflow["20"]["inputs"] |= strengths
    for node in ("6", "7"):
        workflow[node]["inputs"]["clip"] = ["20", 1]
    if control_image is not None:
        applied = {"positive": ["6", 0], "negative": ["7", 0], "control_net": ["30", 0], "image": ["31", 0]}
        applied |= {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
        workflow["30"] = {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "controlnet"}}
        workflow["31"] = {"class_type": "LoadImage", "inputs": {"image": control_image}}
        workflow["32"] = {"class_type": "ControlNetApplyAdvanced", "inputs": applied}
        workflow["3"]["inputs"] |= {"positive": ["32", 0], "negative": ["32", 1]}
    comfy = Comfy(server.client)
    entry = comfy.run(workflow)
    return decoded(comfy.pictures(entry)[0])


def test_every_api_applies_the_lora(server: Server) -> None:
    prompt, loras = PROMPTS[0][0], [{"model": "lora", "weight": WEIGHT}]
    made = enqueued(server, **SETTINGS)
    assert np.linalg.norm(figure_color(made.astype(np.float32)) - PURPLE) < 2 * NEAR
    openai = {"prompt": prompt, "size": "128x128", "response_format": "b64_json", "loras": loras, **SETTINGS}
    image = answered(server, "/v1/images/generations", openai)["data"][0]["b64_json"]
    assert np.array_equal(decoded(image), made)
    automatic1111 = {"prompt": f"{prompt}<lora:lora:{WEIGHT}>", **SETTINGS}
    assert np.array_equal(decoded(answered(server, "/sdapi/v1/txt2img", automatic1111)["images"][0]), made)
    assert np.array_equal(from_comfyui(server), made)
    gemini = {"seed": SETTINGS["seed"], "loras": loras}
    predicted = {"instances": [{"prompt": prompt}], "parameters": gemini}
    image = answered(server, f"/v1beta/models/{MODEL}:predict", predicted)["predictions"][0]["bytesBase64Encoded"]
    by_default = enqueued(server, seed=SETTINGS["seed"])
    assert np.array_equal(decoded(image), by_default)
    content = {"contents": [{"parts": [{"text": prompt}]}], "generationConfig": gemini}
    (part,) = answered(server, f"/v1beta/models/{MODEL}:generateContent", content)["candidates"][0]["content"]["parts"]
    assert np.array_equal(decoded(part["inlineData"]["data"]), by_default)


@pytest.mark.slow
def test_every_api_applies_the_lora_and_the_controlnet(server: Server, tmp_path: Path) -> None:
    name = silhouette(server, *SPOTS[1])
    made = enqueued(server, controls=[{"model": "controlnet", "image": name}], **SETTINGS)
    file = server.client.get(f"/api/v1/images/i/{name}/full").content
    assert np.array_equal(from_comfyui(server, name), made)
    unit = {"model": "controlnet", "module": "none", "resize_mode": 0, "image": base64.b64encode(file).decode()}
    automatic1111 = {"prompt": f"{PROMPTS[0][0]}<lora:lora:{WEIGHT}>", **SETTINGS}
    automatic1111["alwayson_scripts"] = {"ControlNet": {"args": [unit]}}
    assert np.array_equal(decoded(answered(server, "/sdapi/v1/txt2img", automatic1111)["images"][0]), made)
    (tmp_path / "disc.png").write_bytes(file)
    out = tmp_path / "out.png"
    options = ["--lora", f"lora:{WEIGHT}", "--control", f"controlnet:{tmp_path / 'disc.png'}", "--steps", "8"]
    options += ["--cfg", "4", "--seed", str(SETTINGS["seed"]), "--root", str(server.root), "--out", str(out)]
    command = [sys.executable, "-m", "invokeclone", "generate", PROMPTS[0][0], *options]
    subprocess.run(command, check=True, capture_output=True, timeout=240, env={**os.environ, "INVOKEAI_DEVICE": "cpu"})
    assert np.abs(decoded(out.read_bytes()).astype(int) - made).max() <= 1
