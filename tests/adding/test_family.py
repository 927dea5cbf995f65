"""A family is a folder: with `toys/tiny_flow` beside the others, its model is installed, identified and run by every way in.

It is a flow-matching transformer, of which the package has none yet; nothing else is edited.
"""

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.server.listening import connect_client
from tests.server_process import Server

SERVE = Path(__file__).parent / "toys" / "serve.py"
WIDTH, HEIGHT, STEPS, SEED, SCALE = 96, 64, 4, 7, 3.0
PROMPT, NEGATIVE = "a red fox", "blurry"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a pipeline's folder with random weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from invokeclone.components.clip.load import tokenizer

    torch.manual_seed(0)
    words = tokenizer()
    text = CLIPTextConfig(
        hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, projection_dim=32,
        vocab_size=len(words), bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=32,
        pos_embed_max_size=32,
    )  # fmt: skip
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    vae = AutoencoderKL(
        block_out_channels=[4, 4, 8, 8], down_block_types=["DownEncoderBlock2D"] * 4, norm_num_groups=2,
        up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=1, sample_size=64,
    )  # fmt: skip
    parts = {
        "transformer": transformer,
        "text_encoder": CLIPTextModelWithProjection(text),
        "tokenizer": words,
        "vae": vae,
    }
    folder = tmp_path_factory.mktemp("families") / "tiny flow"
    index: dict[str, Any] = {"_class_name": "TinyFlowPipeline"}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        library = type(part).__module__.partition(".")[0]
        index[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server") / "root", [str(SERVE)]).start()
    source = {"source": str(model), "inplace": True}
    running.client.post("/api/v2/models/install", params=source, json={}).raise_for_status()
    running.wait_for(lambda: records(running), "the model")
    yield running
    running.client.close()
    running.stop()


def records(server: Server) -> list[dict[str, Any]]:
    return list(server.client.get("/api/v2/models/", params={"model_name": "tiny flow"}).json()["models"])


def enqueue(server: Server, **request: Any) -> int:
    body = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "model": "tiny flow", "seed": SEED, "steps": STEPS}
    answer = server.client.post("/api/v1/queue/default/enqueue_prompt", json=body | request)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["item_ids"][0])


def pixels(server: Server, item: dict[str, Any]) -> np.ndarray:
    assert item["status"] == "completed", item["error_traceback"]
    size = server.output_image(item)
    return np.frombuffer(server.output_pixels(item), np.uint8).reshape(size["height"], size["width"], 3).astype(int)


def decode_image(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(server: Server, image: Image.Image) -> str:
    files = {"file": ("a.png", to_png(image), "image/png")}
    query = {"image_category": "user", "is_intermediate": False}
    answer = server.client.post("/api/v1/images/upload", params=query, files=files)
    return str(answer.json()["image_name"])


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    gray = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    return Image.merge("RGB", (gray, gray.rotate(180), gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    """Return a mask that is black, which changes, on the left."""
    image = Image.new("L", (WIDTH, HEIGHT), 255)
    image.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    return image


@pytest.fixture(scope="module")
def made(server: Server) -> np.ndarray:
    """Return the image of the prompt by our own API."""
    return pixels(server, server.finished(enqueue(server)))


def reference(model: Path) -> np.ndarray:
    """Return the same image by diffusers' own scheduler, in this process."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    transformer = SD3Transformer2DModel.from_pretrained(model / "transformer").eval()
    vae = AutoencoderKL.from_pretrained(model / "vae").eval()
    text_encoder = CLIPTextModelWithProjection.from_pretrained(model / "text_encoder").eval()
    words = CLIPTokenizer.from_pretrained(model / "tokenizer")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / STEPS, STEPS).tolist())
    latents = torch.randn((1, 4, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(SEED))
    with torch.inference_mode():
        tokens = words([NEGATIVE, PROMPT], padding="max_length", return_tensors="pt")["input_ids"]
        text = text_encoder(tokens)
        for timestep in scheduler.timesteps:
            output = transformer(torch.cat([latents] * 2), text.last_hidden_state, text.text_embeds, timestep.expand(2))
            without, prediction = output.sample.chunk(2)
            latents = scheduler.step(without + SCALE * (prediction - without), timestep, latents).prev_sample
        image = vae.decode(latents / vae.config.scaling_factor).sample[0]
    return np.rint(image.add(1).mul(127.5).clamp(0, 255).numpy()).astype(int).transpose(1, 2, 0)


def test_a_model_is_identified_and_its_schemas_are_published(server: Server) -> None:
    (record,) = records(server)
    assert (record["base"], record["type"], record["format"]) == ("unknown", "main", "diffusers")
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["TinyFlowDenoiseInvocation"]["output"] == {"$ref": "#/components/schemas/LatentsOutput"}
    assert "Main_Diffusers_TinyFlow_Config" in schemas


def test_image_matches_diffusers(made: np.ndarray, model: Path) -> None:
    assert made.shape == (HEIGHT, WIDTH, 3)
    assert made.std() > 10
    assert np.abs(made - reference(model)).max() <= 1


def test_image_to_image_and_inpainting(server: Server, model: Path, photo: Image.Image, mask: Image.Image) -> None:
    init_image = {"image": upload(server, photo), "strength": 0.5}

    def generate_with_mask(keep_mask: Image.Image | None) -> np.ndarray:
        inpaint_mask = keep_mask and {"mask": upload(server, keep_mask), "paste": False}
        return pixels(server, server.finished(enqueue(server, init_image=init_image, inpaint_mask=inpaint_mask)))

    everywhere = generate_with_mask(None)
    assert np.abs(everywhere - vae_round_trip(model, photo)).mean() > 3
    assert (generate_with_mask(Image.new("L", (WIDTH, HEIGHT), 0)) == everywhere).all(), "all of it may change"
    nowhere = generate_with_mask(Image.new("L", (WIDTH, HEIGHT), 255))
    assert np.abs(nowhere - vae_round_trip(model, photo)).max() <= 1
    partly = generate_with_mask(mask)
    assert min(np.abs(partly - other).mean() for other in (everywhere, nowhere)) > 3


def vae_round_trip(model: Path, image: Image.Image) -> np.ndarray:
    """Return what the model's autoencoder keeps of an image."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(model / "vae").eval()
    with torch.inference_mode():
        inputs = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        latents = vae.encode(inputs).latent_dist.sample(torch.Generator().manual_seed(0))
        decoded_pixels = vae.decode(latents).sample[0]
    return np.rint(decoded_pixels.add(1).mul(127.5).clamp(0, 255).numpy()).astype(int).transpose(1, 2, 0)


def test_hires_fix_enlarges_the_image(server: Server) -> None:
    fix = {"width": 192, "height": 128, "steps": 4, "strength": 0.5}
    assert pixels(server, server.finished(enqueue(server, hires_fix=fix))).shape == (128, 192, 3)


def test_unsupported_options_are_refused(server: Server) -> None:
    body = {"prompt": PROMPT, "model": "tiny flow", "clip_skip": 1}
    answer = server.client.post("/api/v1/queue/default/enqueue_prompt", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (400, "tiny flow: unknown models do not support CLIP skip")


def test_openai(server: Server, made: np.ndarray, photo: Image.Image, mask: Image.Image) -> None:
    body = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "model": "tiny flow", "seed": SEED, "steps": STEPS}
    size = {"size": f"{WIDTH}x{HEIGHT}", "response_format": "b64_json"}
    answer = server.client.post("/v1/images/generations", json=body | size)
    assert answer.status_code == 200, answer.text
    assert (decode_image(answer.json()["data"][0]["b64_json"]) == made).all()
    alpha = photo.copy()
    alpha.putalpha(mask)
    files = {"image": ("a.png", to_png(photo), "image/png"), "mask": ("m.png", to_png(alpha), "image/png")}
    answer = server.client.post("/v1/images/edits", data={"prompt": PROMPT, "model": "tiny flow", **size}, files=files)
    assert answer.status_code == 200, answer.text
    edited = decode_image(answer.json()["data"][0]["b64_json"])
    assert np.abs(edited - np.asarray(photo).astype(int))[:, -16:].max() <= 1


def test_automatic1111(server: Server, made: np.ndarray, photo: Image.Image) -> None:
    body = {
        "prompt": "a (red:1.4) fox",  # the family has no weights: its prompt is the words
        "negative_prompt": NEGATIVE,
        "seed": SEED,
        "steps": STEPS,
        "sampler_name": "DPM++ 2M",
        "override_settings": {"sd_model_checkpoint": "tiny flow", "CLIP_stop_at_last_layers": 2},
    }
    answer = server.client.post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 200, answer.text
    assert (decode_image(answer.json()["images"][0]) == made).all()
    assert "no weights" in answer.headers["warning"]
    assert "Sampler: Euler," in json.loads(answer.json()["info"])["infotexts"][0], "the one that it was made with"
    init = {"init_images": [base64.b64encode(to_png(photo)).decode()], "width": WIDTH, "height": HEIGHT}
    answer = server.client.post("/sdapi/v1/img2img", json=body | init)
    assert answer.status_code == 200, answer.text
    assert decode_image(answer.json()["images"][0]).shape == made.shape


def comfyui_workflow(prompt: str = PROMPT) -> dict[str, Any]:
    sampler = {"seed": SEED, "steps": STEPS, "cfg": SCALE, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "tiny flow"}),
        "2": ("CLIPTextEncode", {"text": prompt, "clip": ["1", 1]}),
        "3": ("CLIPTextEncode", {"text": NEGATIVE, "clip": ["1", 1]}),
        "4": ("EmptySD3LatentImage", {"width": WIDTH, "height": HEIGHT, "batch_size": 1}),
        "5": ("KSampler", sampler | links),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "x"}),
    }
    return {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}


def comfyui_image(server: Server, prompt: dict[str, Any]) -> np.ndarray:
    answer = server.client.post("/prompt", json={"prompt": prompt})
    assert answer.status_code == 200, answer.text
    prompt_id = answer.json()["prompt_id"]
    history = server.wait_for(lambda: server.client.get(f"/history/{prompt_id}").json().get(prompt_id), "history")
    image = history["outputs"]["7"]["images"][0]
    data = server.client.get("/view", params=image).content
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_weights_are_left_out_with_a_warning(server: Server, made: np.ndarray) -> None:
    """The family's prompts have no weights: ComfyUI's brackets are not words of the prompt."""
    weighted = comfyui_workflow("a (red:1.4) ((fox))")
    assert (comfyui_image(server, weighted) == made).all()
    answer = server.client.post("/prompt", json={"prompt": weighted})
    (warning,) = answer.json()["warnings"]
    assert "no weights" in warning
    assert answer.headers["warning"] == f'299 - "{warning}"'
    assert server.client.post("/prompt", json={"prompt": comfyui_workflow()}).headers.get("warning") is None
    strict = server.client.post("/prompt", json={"prompt": weighted}, headers={"Prefer": "handling=strict"})
    assert (strict.status_code, strict.json()["error"]["message"]) == (400, warning)


def test_encoders_and_autoencoder_are_loaded_by_their_own_nodes(server: Server, made: np.ndarray) -> None:
    prompt = comfyui_workflow()
    clip = {"clip_name1": "tiny flow", "clip_name2": "tiny flow", "type": "any"}
    prompt |= {
        "11": {"class_type": "UNETLoader", "inputs": {"unet_name": "tiny flow", "weight_dtype": "default"}},
        "12": {"class_type": "DualCLIPLoader", "inputs": clip},
        "13": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny flow"}},
    }
    prompt["5"]["inputs"]["model"] = ["11", 0]
    prompt["2"]["inputs"]["clip"] = prompt["3"]["inputs"]["clip"] = ["12", 0]
    prompt["6"]["inputs"]["vae"] = ["13", 0]
    assert (comfyui_image(server, prompt) == made).all()


def test_images_off_the_grid_are_fitted_before_they_are_encoded(server: Server) -> None:
    prompt = comfyui_workflow()
    prompt["4"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["8", 0], "vae": ["1", 2]}}
    size = {"width": 100, "height": 72, "batch_size": 1, "color": 0xFF0000}
    prompt["8"] = {"class_type": "EmptyImage", "inputs": size}
    assert comfyui_image(server, prompt).shape == (64, 96, 3)


def test_comfyui(server: Server, made: np.ndarray) -> None:
    listed = server.client.get("/object_info/CheckpointLoaderSimple").json()["CheckpointLoaderSimple"]
    assert "tiny flow" in listed["input"]["required"]["ckpt_name"][0]
    prompt = comfyui_workflow()
    assert (comfyui_image(server, prompt) == made).all()
    prompt["8"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["1", 1], "stop_at_clip_layer": -2}}
    prompt["2"]["inputs"]["clip"] = ["8", 0]
    answer = server.client.post("/prompt", json={"prompt": prompt})
    assert answer.status_code == 400
    assert "do not support CLIP skip" in answer.text


async def test_previews_and_cancel(server: Server) -> None:
    async with connect_client(server.url) as client:
        await client.socket.subscribe()
        item_id = enqueue(server, steps=900, width=512, height=512)

        def previews() -> list[dict[str, Any]]:
            return [data["image"] for name, data in client.events if name == "invocation_progress" and data["image"]]

        async with asyncio.timeout(60):
            while len(previews()) < 3:
                await asyncio.sleep(0.05)
        answer = await asyncio.to_thread(server.client.put, f"/api/v1/queue/default/i/{item_id}/cancel")
        assert answer.status_code == 200
        item = await asyncio.to_thread(server.finished, item_id)
        assert item["status"] == "canceled"
        assert {(image["width"], image["height"]) for image in previews()} == {(512, 512)}
        preview = decode_image(previews()[-1]["dataURL"].partition(",")[2])
        assert preview.shape == (64, 64, 3)
        assert preview.std() > 1
        assert len(previews()) < 800, "the run has ended before its last step"
    item = await asyncio.to_thread(server.finished, enqueue(server))
    assert item["status"] == "completed", "the worker goes on"


def test_generate_from_the_command_line(server: Server, made: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "fox.png"
    options = ["--negative", NEGATIVE, "--model", "tiny flow", "--seed", str(SEED), "--steps", str(STEPS)]
    command = [sys.executable, str(SERVE), "generate", PROMPT, "--out", str(out), "--root", str(server.root), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (np.asarray(Image.open(out).convert("RGB")).astype(int) == made).all()
