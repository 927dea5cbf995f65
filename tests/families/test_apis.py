"""Tiny models of transformer families on a real server: every API makes the same image; initial images, masks, failures."""

import base64
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.server_process import Server

WIDTH, HEIGHT, STEPS, SEED, SCALE = 96, 64, 3, 7, 3.0
PROMPT, NEGATIVE = "a red fox", "blurry"
MODELS = ("tiny sd3", "tiny cogview4", "tiny flux", "tiny flux2", "tiny z-image")
DISTILLED = ("tiny flux",)
"""Models whose guidance is an input of the network."""


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    sd3_folder: Path,
    cogview4_folder: Path,
    flux_folder: Path,
    flux2_folder: Path,
    z_image_folder: Path,
) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server") / "root").start()
    for folder in (sd3_folder, cogview4_folder, flux_folder, flux2_folder, z_image_folder):
        source = {"source": str(folder), "inplace": True}
        running.client.post("/api/v2/models/install", params=source, json={}).raise_for_status()

    def installed() -> bool:
        models = running.client.get("/api/v2/models/").json()["models"]
        return set(MODELS) <= {model["name"] for model in models}

    running.wait_for(installed, "the models")
    for record in running.client.get("/api/v2/models/").json()["models"]:
        if record["name"] in MODELS:
            settings = {"width": WIDTH, "height": HEIGHT, "steps": STEPS}
            settings |= {"guidance" if record["name"] in DISTILLED else "cfg_scale": SCALE}
            changes = {"default_settings": settings}
            running.client.patch(f"/api/v2/models/i/{record['key']}", json=changes).raise_for_status()
    yield running
    running.client.close()
    running.stop()


def enqueue(server: Server, model: str, **request: Any) -> int:
    body = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "model": model, "seed": SEED, "steps": STEPS}
    size = {"width": WIDTH, "height": HEIGHT, "cfg_scale": SCALE}
    answer = server.client.post("/api/v1/queue/default/enqueue_prompt", json={**body, **size, **request})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["item_ids"][0])


def generate(server: Server, model: str, **request: Any) -> np.ndarray:
    item = server.finished(enqueue(server, model, **request))
    assert item["status"] == "completed", item["error_traceback"]
    size = server.output_image(item)
    return np.frombuffer(server.output_pixels(item), np.uint8).reshape(size["height"], size["width"], 3).astype(int)


def decode_image(data: bytes | str) -> np.ndarray:
    file = io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def upload(server: Server, image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    query = {"image_category": "user", "is_intermediate": False}
    files = {"file": ("a.png", file.getvalue(), "image/png")}
    return str(server.client.post("/api/v1/images/upload", params=query, files=files).json()["image_name"])


def from_comfyui(server: Server, model: str) -> np.ndarray:
    distilled = model in DISTILLED
    cfg = 1.0 if distilled else SCALE
    sampler = {"seed": SEED, "steps": STEPS, "cfg": cfg, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    links = {
        "model": ["1", 0],
        "positive": ["8" if distilled else "2", 0],
        "negative": ["3", 0],
        "latent_image": ["4", 0],
    }
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": model}),
        "2": ("CLIPTextEncode", {"text": PROMPT, "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": NEGATIVE, "clip": ["1", 1]}),
        "4": ("EmptySD3LatentImage", {"width": WIDTH, "height": HEIGHT, "batch_size": 1}),
        "5": ("KSampler", sampler | links),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "x"}),
        "8": ("FluxGuidance", {"conditioning": ["2", 0], "guidance": SCALE}),
    }
    return run_workflow(server, nodes)


def run_workflow(server: Server, nodes: dict[str, tuple[str, dict[str, Any]]], *warnings: str) -> np.ndarray:
    """Return the image of the workflow's node 7; its warnings contain `warnings`, one each."""
    prompt = {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}
    answer = server.client.post("/prompt", json={"prompt": prompt})
    assert answer.status_code == 200, answer.text
    received = answer.json().get("warnings", [])
    assert len(received) == len(warnings), received
    assert all(text in message for text, message in zip(warnings, received, strict=True)), received
    prompt_id = answer.json()["prompt_id"]
    history = server.wait_for(lambda: server.client.get(f"/history/{prompt_id}").json().get(prompt_id), "history")
    image = history["outputs"]["7"]["images"][0]
    query = {"filename": image["filename"], "type": image["type"]}
    return decode_image(server.client.get("/view", params=query).content)


@pytest.mark.parametrize("model", MODELS)
def test_every_api_makes_the_same_image(model: str, server: Server) -> None:
    made = generate(server, model)
    assert made.shape == (HEIGHT, WIDTH, 3)
    assert made.std() > 10
    body = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": SEED, "steps": STEPS, "cfg_scale": SCALE}
    size = {"width": WIDTH, "height": HEIGHT}
    automatic1111 = server.client.post(
        "/sdapi/v1/txt2img", json=body | size | {"override_settings": {"sd_model_checkpoint": model}}
    )
    assert automatic1111.status_code == 200, automatic1111.text
    assert (decode_image(automatic1111.json()["images"][0]) == made).all()
    openai = server.client.post(
        "/v1/images/generations",
        json=body | {"model": model, "size": f"{WIDTH}x{HEIGHT}", "response_format": "b64_json"},
    )
    assert openai.status_code == 200, openai.text
    assert (decode_image(openai.json()["data"][0]["b64_json"]) == made).all()
    assert (from_comfyui(server, model) == made).all()


@pytest.mark.parametrize("model", MODELS)
def test_gemini_uses_the_settings_of_the_record(model: str, server: Server) -> None:
    body = {"contents": [{"parts": [{"text": PROMPT}]}], "generationConfig": {"seed": SEED}}
    answer = server.client.post(f"/v1beta/models/{model}:generateContent", json=body)
    assert answer.status_code == 200, answer.text
    (part,) = answer.json()["candidates"][0]["content"]["parts"]
    assert (decode_image(part["inlineData"]["data"]) == generate(server, model, negative_prompt="")).all()


@pytest.mark.slow  # tests/adding has a family that is generated from the command line
def test_generate_from_the_command_line(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "fox.png"
    options = ["--model", "tiny flux", "--seed", str(SEED), "--root", str(server.root)]
    command = [sys.executable, "-m", "invokeclone", "generate", PROMPT, "--out", str(out), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (decode_image(out.read_bytes()) == generate(server, "tiny flux")).all()


@pytest.mark.parametrize("model", MODELS)
def test_initial_images_masks_and_hires_fix(model: str, server: Server) -> None:
    gray = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    photo = Image.merge("RGB", (gray, gray.rotate(180), gray))
    image = {"image": upload(server, photo), "strength": 0.5}

    def with_mask(mask: Image.Image) -> np.ndarray:
        return generate(server, model, init_image=image, inpaint_mask={"mask": upload(server, mask), "paste": False})

    everywhere = generate(server, model, init_image=image)
    assert (with_mask(Image.new("L", photo.size, 0)) == everywhere).all(), "all of it may change"
    nowhere = with_mask(Image.new("L", photo.size, 255))
    assert np.abs(nowhere - everywhere).mean() > 3
    half = Image.new("L", photo.size, 255)
    half.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    assert min(np.abs(with_mask(half) - other).mean() for other in (everywhere, nowhere)) > 3
    enlarged = generate(server, model, hires_fix={"width": 192, "height": 128, "steps": 2, "strength": 0.5})
    assert enlarged.shape == (128, 192, 3)


def test_a_second_pass_with_another_family(server: Server) -> None:
    """FLUX.1 repaints the enlarged image of Stable Diffusion 3, as it does with that image as its initial one."""
    fix = {"width": 192, "height": 128, "steps": 4, "strength": 0.5, "in_pixels": True}
    second = {"model": "tiny flux", "prompt": "a blue fox"}
    made = generate(server, "tiny sd3", hires_fix=fix, second_pass=second)
    assert made.shape == (128, 192, 3)
    enlarged = Image.fromarray(generate(server, "tiny sd3").astype(np.uint8)).resize(
        (192, 128), Image.Resampling.LANCZOS
    )
    size = {"width": 192, "height": 128, "steps": 4, "prompt": "a blue fox", "negative_prompt": ""}
    init_image = {"image": upload(server, enlarged), "strength": 0.5}
    assert np.abs(made - generate(server, "tiny flux", init_image=init_image, **size)).max() <= 1
    body = {"prompt": PROMPT, "model": "tiny sd3", "second_pass": second}
    for request, message in (
        ({}, "needs a hires fix"),
        ({"hires_fix": fix | {"in_pixels": False}}, "cannot read the latents"),
    ):
        answer = server.client.post("/api/v1/queue/default/enqueue_prompt", json=body | request)
        assert answer.status_code == 400, answer.text
        assert message in answer.text


@pytest.mark.parametrize("model", MODELS)
def test_metadata_names_the_family(model: str, server: Server) -> None:
    item = server.finished(enqueue(server, model))
    mode = server.output_metadata(item)["generation_mode"]
    assert mode == f"{model.removeprefix('tiny ').replace('-', '_')}_txt2img"


def test_unsupported_options_are_refused_before_anything_is_enqueued(server: Server) -> None:
    for request, message in (
        ({"clip_skip": 1}, "do not support CLIP skip"),
        ({"seamless": True}, "do not support seamless"),
    ):
        body = {"prompt": PROMPT, "model": "tiny cogview4", **request}
        answer = server.client.post("/api/v1/queue/default/enqueue_prompt", json=body)
        assert answer.status_code in (400, 422), answer.text
        assert message in answer.text


def test_the_worker_continues_after_a_failure(server: Server, sd3_folder: Path) -> None:
    """The folder loses its T5 encoder; with a new record, nothing of it is in the model cache."""
    import shutil

    incomplete = shutil.copytree(sd3_folder, server.root.parent / "without t5")
    shutil.rmtree(incomplete / "text_encoder_3")
    source = {"source": str(incomplete), "inplace": True}
    server.client.post("/api/v2/models/install", params=source, json={}).raise_for_status()
    query = {"model_name": "without t5"}
    server.wait_for(lambda: server.client.get("/api/v2/models/", params=query).json()["models"], "the model")
    worker = server.a_worker().pid
    item = server.finished(enqueue(server, "without t5"))
    assert item["status"] == "failed"
    assert "without t5 has no T5 encoder" in item["error_message"]
    assert generate(server, "tiny sd3").std() > 10
    assert server.a_worker().pid == worker


# ComfyUI's templates of FLUX.2 and Z-Image, whose parts are loaded apart


def parts_of(model: str, text_encoder: str, vae: str, encoder_type: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the beginning of a template: the loaders 1, 2 and 3, the prompts 4 and 5; the image is that of node 13."""
    return {
        "1": ("UNETLoader", {"unet_name": model, "weight_dtype": "default"}),
        "2": ("CLIPLoader", {"clip_name": text_encoder, "type": encoder_type, "device": "default"}),
        "3": ("VAELoader", {"vae_name": vae}),
        "4": ("CLIPTextEncode", {"text": PROMPT, "clip": ["2", 0]}),
        "5": ("CLIPTextEncode", {"text": NEGATIVE, "clip": ["2", 0]}),
        "6": ("VAEDecode", {"samples": ["13", 0], "vae": ["3", 0]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "x"}),
    }


def z_image_template(model: str, text_encoder: str, vae: str, shift: float) -> dict[str, tuple[str, dict[str, Any]]]:
    sampler = {"seed": SEED, "steps": STEPS, "cfg": SCALE, "sampler_name": "res_multistep", "scheduler": "simple"}
    links = {"model": ["8", 0], "positive": ["4", 0], "negative": ["5", 0], "latent_image": ["14", 0], "denoise": 1.0}
    return parts_of(model, text_encoder, vae, "lumina2") | {
        "8": ("ModelSamplingAuraFlow", {"model": ["1", 0], "shift": shift}),
        "13": ("KSampler", sampler | links),
        "14": ("EmptySD3LatentImage", {"width": WIDTH, "height": HEIGHT, "batch_size": 1}),
    }


def test_template_of_z_image(server: Server) -> None:
    from invokeclone.engine.schedules import flow

    model, made = "tiny z-image", generate(server, "tiny z-image")
    usual = flow.shift_by_tokens(WIDTH * HEIGHT // 16**2)
    sampler = "has no dpmpp_2m (res_multistep, simple): euler is used"
    nodes = z_image_template(model, model, model, usual)
    assert (run_workflow(server, nodes, sampler) == made).all()
    nodes["8"][1]["shift"] = 4 * usual
    assert np.abs(run_workflow(server, nodes, sampler) - made).max() > 0


def test_template_of_flux2(server: Server) -> None:
    model = "tiny flux2"
    size = {"width": WIDTH, "height": HEIGHT}
    samples = {"noise": ["10", 0], "guider": ["9", 0], "sampler": ["11", 0], "sigmas": ["12", 0]}
    nodes = parts_of(model, model, model, "flux2") | {
        "9": ("CFGGuider", {"model": ["1", 0], "positive": ["4", 0], "negative": ["5", 0], "cfg": SCALE}),
        "10": ("RandomNoise", {"noise_seed": SEED}),
        "11": ("KSamplerSelect", {"sampler_name": "euler"}),
        "12": ("Flux2Scheduler", {"steps": STEPS, **size}),
        "13": ("SamplerCustomAdvanced", samples | {"latent_image": ["14", 0]}),
        "14": ("EmptyFlux2LatentImage", {**size, "batch_size": 1}),
    }
    assert (run_workflow(server, nodes) == generate(server, model)).all()


def test_a_transformer_with_separate_parts(server: Server, z_image_folder: Path, z_image_parts: dict[str, Any]) -> None:
    """The folder of the transformer has no text encoder and no VAE: the workflow's are used, or those of the request."""
    import shutil

    from safetensors.torch import save_file

    parent = server.root.parent
    bare = shutil.copytree(z_image_folder, parent / "tiny bare")
    encoder = parent / "tiny qwen3"
    encoder.mkdir()
    shutil.move(bare / "text_encoder", encoder / "text_encoder")
    shutil.move(bare / "tokenizer", encoder / "tokenizer")
    shutil.rmtree(bare / "vae")
    save_file(z_image_parts["vae"].state_dict(), parent / "tiny ae.safetensors")
    of_encoder = {"type": "qwen3_encoder", "format": "qwen3_encoder", "base": "any", "variant": "qwen3_4b"}
    for path, config in ((bare, {}), (encoder, of_encoder), (parent / "tiny ae.safetensors", {})):
        source = {"source": str(path), "inplace": True}
        server.client.post("/api/v2/models/install", params=source, json=config).raise_for_status()
    names = {"tiny bare", "tiny qwen3", "tiny ae"}
    server.wait_for(
        lambda: names <= {model["name"] for model in server.client.get("/api/v2/models/").json()["models"]}, "parts"
    )
    from invokeclone.engine.schedules import flow

    usual = flow.shift_by_tokens(WIDTH * HEIGHT // 16**2)
    nodes = z_image_template("tiny bare", "tiny qwen3", "tiny ae", usual)
    made = generate(server, "tiny z-image", vae="tiny ae")
    assert (run_workflow(server, nodes, "euler is used") == made).all()
    assert (generate(server, "tiny bare", vae="tiny ae") == made).all()
