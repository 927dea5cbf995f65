"""FLUX.1, FLUX.2 dev and SD3 on a real server: ComfyUI's usual workflows, both guidances, reference images, Fill's masks."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.families.test_apis import (
    HEIGHT,
    NEGATIVE,
    PROMPT,
    SCALE,
    SEED,
    STEPS,
    WIDTH,
    decode_image,
    enqueue,
    generate,
    run_workflow,
    upload,
)
from tests.server_process import Server
from tests.tiny_flux import make_transformer

FLUX, KONTEXT, FILL, SCHNELL, SD3 = "tiny flux", "tiny Kontext", "tiny fill", "tiny schnell", "tiny sd3"
FLUX2 = "tiny flux2 dev"
Nodes = dict[str, tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, flux_folder: Path, sd3_folder: Path, flux2_dev_folder: Path
) -> list[Path]:
    """Return the folders of the models: Kontext has dev's weights, Fill has more channels."""
    parent = tmp_path_factory.mktemp("flux")
    kontext, fill, schnell = (shutil.copytree(flux_folder, parent / name) for name in (KONTEXT, FILL, SCHNELL))
    changes: tuple[tuple[Path, dict[str, Any]], ...] = (
        (fill, {"in_channels": 384, "out_channels": 64}),
        (schnell, {"guidance_embeds": False}),
    )
    for folder, config in changes:
        shutil.rmtree(folder / "transformer")
        make_transformer(**config).save_pretrained(folder / "transformer")
    return [flux_folder, kontext, fill, schnell, sd3_folder, flux2_dev_folder]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folders: list[Path], flux_folder: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server") / "root").start()
    for folder in folders:
        install(running, folder)
    install_text_encoders(running, flux_folder, tmp_path_factory.mktemp("encoders"))
    install_image_models(running, tmp_path_factory.mktemp("images"))
    names = {folder.name for folder in folders} | {"tiny t5", "tiny clip-l", "tiny eye", "redux", "union"}

    def installed() -> bool:
        return names <= {model["name"] for model in running.client.get("/api/v2/models/").json()["models"]}

    running.wait_for(installed, "the models")
    yield running
    running.client.close()
    running.stop()


def install(server: Server, folder: Path, **config: Any) -> None:
    source = {"source": str(folder), "inplace": True}
    server.client.post("/api/v2/models/install", params=source, json=config).raise_for_status()


def install_text_encoders(server: Server, flux_folder: Path, parent: Path) -> None:
    """Install FLUX.1's text encoders as models of their own."""
    import torch
    from transformers import CLIPTextModel, T5EncoderModel

    t5 = parent / "tiny t5"
    shutil.copytree(flux_folder / "tokenizer_2", t5 / "tokenizer_2")
    encoder = T5EncoderModel.from_pretrained(flux_folder / "text_encoder_2")
    encoder.save_pretrained(t5 / "text_encoder_2", max_shard_size="2KB")
    install(server, t5)
    clip = parent / "tiny clip-l"
    shutil.copytree(flux_folder / "tokenizer", clip / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(flux_folder / "text_encoder")
    text_encoder.to(torch.bfloat16).save_pretrained(clip / "text_encoder")  # as FLUX.1 loads its own
    install(server, clip, type="clip_embed", format="diffusers", base="any", variant="large")


def install_image_models(server: Server, parent: Path) -> None:
    """Install Redux, its image encoder and a union ControlNet."""
    import torch
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
    from safetensors.torch import save_file
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    from tests.families.flux.test_controls import make_controlnet

    torch.manual_seed(5)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    eye = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=32, patch_size=16, vision_use_head=False))
    eye.save_pretrained(parent / "tiny eye")
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(parent / "tiny eye")
    save_file(ReduxImageEncoder(16, 24).state_dict(), parent / "redux.safetensors")
    save_file(make_controlnet(num_mode=7).state_dict(), parent / "union.safetensors")
    for path in parent.iterdir():
        install(server, path)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    gray = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    return Image.merge("RGB", (gray, gray.rotate(180), gray))


def to_png(image: Image.Image) -> bytes:
    import io

    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# ComfyUI's workflows


def advanced(model: str, **changes: tuple[str, dict[str, Any]]) -> Nodes:
    """Return the template of FLUX.1 dev: separate text encoders, a guider, noise, sampler and sigmas."""
    clip = {"clip_name1": "tiny t5", "clip_name2": "tiny clip-l", "type": "flux", "device": "default"}
    size = {"width": WIDTH, "height": HEIGHT}
    return {
        "1": ("UNETLoader", {"unet_name": model, "weight_dtype": "default"}),
        "2": ("DualCLIPLoader", clip),
        "3": ("VAELoader", {"vae_name": model}),
        "4": ("CLIPTextEncode", {"text": PROMPT, "clip": ["2", 0]}),
        "5": ("FluxGuidance", {"conditioning": ["4", 0], "guidance": SCALE}),
        "6": ("VAEDecode", {"samples": ["13", 0], "vae": ["3", 0]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "flux"}),
        "8": ("ModelSamplingFlux", {"model": ["1", 0], "max_shift": 1.15, "base_shift": 0.5, **size}),
        "9": ("BasicGuider", {"model": ["8", 0], "conditioning": ["5", 0]}),
        "10": ("RandomNoise", {"noise_seed": SEED}),
        "11": ("KSamplerSelect", {"sampler_name": "euler"}),
        "12": ("BasicScheduler", {"model": ["8", 0], "scheduler": "simple", "steps": STEPS, "denoise": 1.0}),
        "13": (
            "SamplerCustomAdvanced",
            {
                "noise": ["10", 0],
                "guider": ["9", 0],
                "sampler": ["11", 0],
                "sigmas": ["12", 0],
                "latent_image": ["14", 0],
            },
        ),
        "14": ("EmptySD3LatentImage", {**size, "batch_size": 1}),
        **changes,
    }


def test_advanced_workflow_with_separate_text_encoders(server: Server) -> None:
    made = generate(server, FLUX)
    assert (run_workflow(server, advanced(FLUX)) == made).all()
    guided = generate(server, FLUX, cfg_scale=5.0)
    assert np.abs(guided - made).max() > 0, "guidance has an effect"
    nodes = advanced(FLUX)
    texts = {"clip_l": "a red fox, a photo", "t5xxl": PROMPT, "guidance": 5.0, "clip": ["2", 0]}
    nodes["5"] = ("CLIPTextEncodeFlux", texts)
    nodes["8"][1]["max_shift"] = 2.0
    assert (run_workflow(server, nodes, "max_shift 2", "all text encoders get one text") == guided).all()


def test_split_sigmas_are_two_runs(server: Server) -> None:
    """Schnell's steps are even, so that a range of the steps is the same range of the noise."""
    rest = {
        "noise": ["16", 0],
        "guider": ["9", 0],
        "sampler": ["11", 0],
        "sigmas": ["15", 1],
        "latent_image": ["13", 0],
    }
    nodes = advanced(
        SCHNELL,
        **{
            "6": ("VAEDecode", {"samples": ["17", 1], "vae": ["3", 0]}),
            "15": ("SplitSigmas", {"sigmas": ["12", 0], "step": 1}),
            "16": ("DisableNoise", {}),
            "17": ("SamplerCustomAdvanced", rest),
        },
    )
    nodes["13"][1]["sigmas"] = ["15", 0]
    assert np.abs(run_workflow(server, nodes) - generate(server, SCHNELL)).max() <= 2


def test_ksampler_guides_by_the_negative_prompt_above_1(server: Server) -> None:
    """FluxGuidance is the guidance; the sampler's cfg is Forge's cfg_scale and our true_cfg_scale."""
    sampler = {"seed": SEED, "steps": STEPS, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"model": ["1", 0], "positive": ["5", 0], "negative": ["15", 0], "latent_image": ["14", 0]}

    def sample(cfg: float) -> np.ndarray:
        nodes = advanced(FLUX)
        nodes["13"] = ("KSampler", sampler | links | {"cfg": cfg})
        nodes["15"] = ("CLIPTextEncode", {"text": NEGATIVE, "clip": ["2", 0]})
        return run_workflow(server, nodes)

    made, guided = generate(server, FLUX), generate(server, FLUX, true_cfg_scale=4.0)
    assert np.abs(guided - made).max() > 0
    assert (sample(1.0) == made).all()
    assert (sample(4.0) == guided).all()
    body = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "seed": SEED,
        "steps": STEPS,
        "width": WIDTH,
        "height": HEIGHT,
    }
    body |= {"override_settings": {"sd_model_checkpoint": FLUX}, "cfg_scale": 4.0, "distilled_cfg_scale": SCALE}
    forge = server.client.post("/sdapi/v1/txt2img", json=body)
    assert (decode_image(forge.json()["images"][0]) == guided).all()
    assert f"CFG scale: 4, Seed: {SEED}" not in forge.json()["info"]
    assert "Distilled CFG Scale: 3" in forge.json()["info"]


def test_negative_prompts_without_effect_are_not_encoded(server: Server) -> None:
    nodes = advanced(FLUX)
    links = {"model": ["1", 0], "positive": ["5", 0], "negative": ["15", 0], "latent_image": ["14", 0]}
    sampler = {"seed": SEED, "steps": STEPS, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, "cfg": 1.0}
    nodes["13"] = ("KSampler", sampler | links)
    nodes["15"] = ("ConditioningZeroOut", {"conditioning": ["4", 0]})
    assert (run_workflow(server, nodes) == generate(server, FLUX)).all()
    items = server.client.get("/api/v1/queue/default/list_all").json()
    graphs = [
        server.item(item["item_id"])["session"]["graph"]["nodes"] for item in items if item["origin"] == "comfyui"
    ]
    encoders = [node for node in graphs[-1].values() if node["type"] == "flux_text_encoder"]
    assert len(encoders) == 1


def test_text_encoders_that_the_model_cannot_use_are_refused(server: Server) -> None:
    def why(nodes: Nodes) -> str:
        prompt = {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}
        answer = server.client.post("/prompt", json={"prompt": prompt})
        assert answer.status_code == 400
        return answer.text

    twice = {"clip_name1": "tiny t5", "clip_name2": "tiny t5", "type": "flux"}
    assert "cannot use tiny t5 (t5_encoder) beside the others" in why(
        advanced(FLUX, **{"2": ("DualCLIPLoader", twice)})
    )
    mixed = {"clip_name1": "tiny t5", "clip_name2": FLUX, "type": "flux"}
    assert "must be those of one main model" in why(advanced(FLUX, **{"2": ("DualCLIPLoader", mixed)}))
    lists = server.client.get("/object_info/DualCLIPLoader").json()["DualCLIPLoader"]["input"]["required"]
    assert {"tiny t5", "tiny clip-l", FLUX} <= set(lists["clip_name1"][0])


def test_workflow_of_sd3(server: Server) -> None:
    """Three text encoders of the main model; the usual shift is accepted, and guidance is the sampler's cfg."""
    sampler = {"seed": SEED, "steps": STEPS, "sampler_name": "euler", "scheduler": "sgm_uniform", "denoise": 1.0}
    links = {"model": ["8", 0], "positive": ["4", 0], "negative": ["5", 0], "latent_image": ["14", 0]}
    texts = {"clip_l": PROMPT, "clip_g": PROMPT, "t5xxl": PROMPT, "empty_padding": "none"}
    nodes = advanced(
        SD3,
        **{
            "2": ("TripleCLIPLoader", {"clip_name1": SD3, "clip_name2": SD3, "clip_name3": SD3}),
            "4": ("CLIPTextEncodeSD3", texts | {"clip": ["2", 0]}),
            "5": ("CLIPTextEncode", {"text": NEGATIVE, "clip": ["2", 0]}),
            "8": ("ModelSamplingSD3", {"model": ["1", 0], "shift": 3.0}),
            "13": ("KSampler", sampler | links | {"cfg": SCALE}),
        },
    )
    made = generate(server, SD3)
    assert (run_workflow(server, nodes) == made).all()
    nodes["8"][1]["shift"] = 1.7
    nodes["15"] = ("FluxGuidance", {"conditioning": ["4", 0], "guidance": 2.0})
    nodes["13"][1]["positive"] = ["15", 0]
    assert (run_workflow(server, nodes, "shift 1.7 was not used", "has no guidance input") == made).all()


def test_redux_and_a_union_controlnet(server: Server, photo: Image.Image) -> None:
    """Both change the image; the mode is the one that the name of the kind stands for."""
    name = upload(server, photo)
    applied = {"conditioning": ["4", 0], "style_model": ["21", 0], "clip_vision_output": ["22", 0]}
    sides = {"positive": ["23", 0], "negative": ["4", 0], "vae": ["3", 0], "image": ["16", 0], "strength": 0.7}
    nodes = advanced(
        FLUX,
        **{
            "16": ("LoadImage", {"image": name}),
            "20": ("CLIPVisionLoader", {"clip_name": "tiny eye"}),
            "21": ("StyleModelLoader", {"style_model_name": "redux.safetensors"}),
            "22": ("CLIPVisionEncode", {"clip_vision": ["20", 0], "image": ["16", 0], "crop": "center"}),
            "23": ("StyleModelApply", applied | {"strength": 1.0, "strength_type": "multiply"}),
            "24": ("ControlNetLoader", {"control_net_name": "union.safetensors"}),
            "25": ("SetUnionControlNetType", {"control_net": ["24", 0], "type": "depth"}),
            "26": ("ControlNetApplySD3", sides | {"control_net": ["25", 0], "start_percent": 0.0, "end_percent": 1.0}),
        },
    )
    nodes["5"][1]["conditioning"] = ["26", 0]
    both = run_workflow(server, nodes)
    nodes["5"][1]["conditioning"] = ["23", 0]
    styled = run_workflow(server, nodes)
    nodes["26"][1]["positive"] = nodes["5"][1]["conditioning"] = ["4", 0]
    plain = run_workflow(server, nodes)
    assert min(np.abs(one - other).max() for one, other in ((both, styled), (styled, plain))) > 0
    nodes["5"][1]["conditioning"] = ["26", 0]
    control = {"model": "union", "image": name, "weight": 0.7, "kind": "depth"}
    assert (run_workflow(server, nodes) == generate(server, FLUX, controls=[control])).all()


@pytest.mark.slow
def test_a_control_lora_and_an_ip_adapter(server: Server, photo: Image.Image, flux_transformer: Any) -> None:
    """In ComfyUI's workflows and in requests alike."""
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from tests.families.flux.test_controls import adapter_file
    from tests.families.flux.test_loras import make_control_lora
    from tests.tiny_flux import original_names

    parent = server.root.parent / "adapters"
    parent.mkdir()
    save_file(make_control_lora(original_names(flux_transformer.state_dict())), parent / "tiny canny.safetensors")
    adapter_file(parent)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    eye = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, projection_dim=12, image_size=224, patch_size=112))
    eye.save_pretrained(parent / "clip-vit-large-patch14")
    for path in parent.iterdir():
        install(server, path)
    names = {"tiny canny", "ip", "clip-vit-large-patch14"}
    server.wait_for(
        lambda: names <= {model["name"] for model in server.client.get("/api/v2/models/").json()["models"]}, "adapters"
    )
    name, plain = upload(server, photo), generate(server, FLUX)
    sides = {"positive": ["5", 0], "negative": ["4", 0], "vae": ["3", 0], "pixels": ["16", 0]}
    fields = {"ipadapter": ["21", 0], "image": ["16", 0], "weight": 0.6, "start_at": 0.0, "end_at": 1.0}
    nodes = advanced(
        FLUX,
        **{
            "16": ("LoadImage", {"image": name}),
            "18": ("LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": "tiny canny", "strength_model": 0.8}),
            "19": ("InstructPixToPixConditioning", sides),
            "20": ("IPAdapter", fields | {"model": ["1", 0], "weight_type": "standard"}),
            "21": ("IPAdapterModelLoader", {"ipadapter_file": "ip"}),
        },
    )
    nodes["9"][1]["model"] = ["20", 0]
    referring = generate(server, FLUX, reference_images=[{"image": name, "weight": 0.6}])
    assert np.abs(referring - plain).max() > 0
    assert (run_workflow(server, nodes) == referring).all()
    nodes["9"][1].update(model=["18", 0], conditioning=["19", 0])
    controlled = generate(server, FLUX, controls=[{"model": "tiny canny", "image": name, "weight": 0.8}])
    assert np.abs(controlled - plain).max() > 0
    assert (run_workflow(server, nodes) == controlled).all()
    for model in names:  # other tests expect that there is none
        server.client.delete(f"/api/v2/models/i/{key_of(server, model)}").raise_for_status()


# Kontext


def edit(server: Server, model: str, photos: list[Image.Image]) -> tuple[np.ndarray, str]:
    """Return OpenAI's edit of images, and its warnings."""
    body = {"prompt": PROMPT, "model": model, "seed": SEED, "steps": STEPS, "cfg_scale": SCALE}
    files = [("image[]", (f"{number}.png", to_png(image), "image/png")) for number, image in enumerate(photos)]
    size = {"size": f"{WIDTH}x{HEIGHT}"}
    answer = server.client.post("/v1/images/edits", data={**body, **size}, files=files)
    assert answer.status_code == 200, answer.text
    return decode_image(answer.json()["data"][0]["b64_json"]), answer.headers.get("warning", "")


@pytest.mark.parametrize("model", [KONTEXT, FLUX2])
def test_the_images_to_edit_are_references(model: str, server: Server, photo: Image.Image) -> None:
    """All of them are references; the image begins with noise."""
    photos = [photo, photo.rotate(180)]
    names = [upload(server, image) for image in photos]
    alone, both = (
        generate(server, model, reference_images=[{"image": name} for name in names[:count]]) for count in (1, 2)
    )
    assert np.abs(alone - generate(server, model)).max() > 0
    assert np.abs(alone - both).max() > 0
    edited, warning = edit(server, model, photos)
    assert (edited == both).all()
    assert warning == ""


def test_images_over_the_limit_are_not_used(server: Server, photo: Image.Image) -> None:
    _, warning = edit(server, KONTEXT, [photo] * 6)
    assert "2 of 6 images are not used" in warning


def test_other_models_edit_the_first_image(server: Server, photo: Image.Image) -> None:
    _, warning = edit(server, FLUX, [photo, photo])
    assert "only the first image is edited, 1 of 2 images is not used" in warning
    assert "no IP-Adapter for flux models is installed" in warning


def test_gemini_gives_kontext_all_images(server: Server, photo: Image.Image) -> None:
    import base64

    data = base64.b64encode(to_png(photo)).decode()
    parts = [{"text": PROMPT}, {"inlineData": {"data": data}}, {"inlineData": {"data": data}}]
    set_defaults(server, KONTEXT, steps=STEPS, guidance=SCALE)
    body = {"contents": [{"parts": parts}], "generationConfig": {"seed": SEED}}
    answer = server.client.post(f"/v1beta/models/{KONTEXT}:generateContent", json=body)
    assert answer.status_code == 200, answer.text
    (part,) = answer.json()["candidates"][0]["content"]["parts"]
    references = [{"image": upload(server, photo)}] * 2
    assert (decode_image(part["inlineData"]["data"]) == generate(server, KONTEXT, reference_images=references)).all()


def test_kontext_workflow(server: Server, photo: Image.Image) -> None:
    name = upload(server, photo)
    sampler = {"seed": SEED, "steps": STEPS, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, "cfg": 1.0}
    links = {"model": ["1", 0], "positive": ["5", 0], "negative": ["15", 0], "latent_image": ["14", 0]}
    nodes = advanced(
        KONTEXT,
        **{
            "5": ("FluxGuidance", {"conditioning": ["18", 0], "guidance": SCALE}),
            "13": ("KSampler", sampler | links),
            "15": ("ConditioningZeroOut", {"conditioning": ["4", 0]}),
            "16": ("LoadImage", {"image": name}),
            "17": ("VAEEncode", {"pixels": ["16", 0], "vae": ["3", 0]}),
            "18": ("ReferenceLatent", {"conditioning": ["4", 0], "latent": ["17", 0]}),
        },
    )
    made = generate(server, KONTEXT, reference_images=[{"image": name}])
    assert (run_workflow(server, nodes) == made).all()
    nodes["13"][1]["latent_image"] = ["17", 0]  # the template samples latents of the reference's size
    assert (run_workflow(server, nodes) == made).all()


# Fill


def test_fill_repaints_the_masked_part(server: Server, photo: Image.Image) -> None:
    mask = Image.new("L", photo.size, 255)
    mask.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    names = {"image": upload(server, photo)}, {"mask": upload(server, mask), "paste": False}
    made = generate(server, FILL, init_image={**names[0], "strength": 1.0}, inpaint_mask=names[1])
    other = generate(server, FILL, init_image={"image": upload(server, photo.rotate(180))}, inpaint_mask=names[1])
    assert np.abs(made - other).max() > 0, "it reads the image"
    sampler = {"seed": SEED, "steps": STEPS, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "cfg": 1.0}
    links = {"model": ["1", 0], "positive": ["18", 0], "negative": ["18", 1], "latent_image": ["18", 2]}
    pixels = {"pixels": ["16", 0], "mask": ["17", 0], "vae": ["3", 0], "noise_mask": False}
    nodes = advanced(
        FILL,
        **{
            "13": ("KSampler", sampler | links),
            "15": ("ConditioningZeroOut", {"conditioning": ["4", 0]}),
            "16": ("LoadImage", {"image": names[0]["image"]}),
            "19": ("LoadImageMask", {"image": names[1]["mask"], "channel": "red"}),
            "17": ("InvertMask", {"mask": ["19", 0]}),
            "18": ("InpaintModelConditioning", {"positive": ["5", 0], "negative": ["15", 0], **pixels}),
        },
    )
    assert (run_workflow(server, nodes) == made).all()


def test_fill_needs_an_image_and_a_mask(server: Server, photo: Image.Image) -> None:
    before = len(server.client.get("/api/v1/queue/default/list_all").json())
    body = {"prompt": PROMPT, "model": FILL}
    init_image = {"image": upload(server, photo)}
    answers = [
        server.client.post("/api/v1/queue/default/enqueue_prompt", json=body),
        server.client.post("/api/v1/queue/default/enqueue_prompt", json=body | {"init_image": init_image}),
        server.client.post("/v1/images/generations", json=body),
        server.client.post("/sdapi/v1/txt2img", json={"override_settings": {"sd_model_checkpoint": FILL}}),
        server.client.post(f"/v1beta/models/{FILL}:predict", json={"instances": [{"prompt": PROMPT}]}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 400, 400], [a.text for a in answers]
    assert all("of its kind do not support" in answer.text for answer in answers)
    nodes = advanced(FILL)
    prompt = {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}
    assert (
        "do not support images without an initial image" in server.client.post("/prompt", json={"prompt": prompt}).text
    )
    assert len(server.client.get("/api/v1/queue/default/list_all").json()) == before


# Settings


def key_of(server: Server, model: str) -> str:
    models = server.client.get("/api/v2/models/", params={"model_name": model}).json()["models"]
    return str(models[0]["key"])


def set_defaults(server: Server, model: str, **settings: Any) -> None:
    changes = {"default_settings": settings}
    server.client.patch(f"/api/v2/models/i/{key_of(server, model)}", json=changes).raise_for_status()


def test_capabilities_are_those_of_the_record(server: Server) -> None:
    def capabilities(model: str) -> dict[str, Any]:
        return dict(server.client.get(f"/api/v2/models/i/{key_of(server, model)}/capabilities").json())

    assert capabilities(SCHNELL)["defaults"]["steps"] == 4
    dev, kontext, fill, flux2 = (capabilities(model) for model in (FLUX, KONTEXT, FILL, FLUX2))
    assert (flux2["defaults"]["steps"], flux2["defaults"]["cfg_scale"], flux2["guidance"]) == (28, 3.5, "distilled")
    assert flux2["limits"]["reference_images"] == 10
    assert (dev["defaults"]["steps"], dev["defaults"]["cfg_scale"], dev["guidance"]) == (28, 3.5, "distilled")
    assert [model["limits"]["reference_images"] for model in (dev, kontext, fill)] == [16, 4, 0]
    features = [model["features"] for model in (dev, kontext, fill)]
    assert [each["reads_references"] for each in features] == [False, True, False]
    assert [(each["text_to_image"], each["image_to_image"], each["inpaint"]) for each in features] == [
        (True, True, True),
        (True, True, True),
        (False, False, True),
    ]


def test_metadata_has_both_guidances(server: Server) -> None:
    metadata = server.output_metadata(server.finished(enqueue(server, FLUX)))
    assert metadata["guidance"] == SCALE
    assert "cfg_scale" not in metadata
    metadata = server.output_metadata(server.finished(enqueue(server, FLUX, true_cfg_scale=2.0)))
    assert (metadata["guidance"], metadata["cfg_scale"]) == (SCALE, 2.0)


def test_settings_that_a_model_lacks_are_refused(server: Server, photo: Image.Image) -> None:
    image = upload(server, photo)
    for model, request, message in (
        (SD3, {"true_cfg_scale": 2.0}, "remove `true_cfg_scale`"),
        (FILL, {"reference_images": [{"image": image}]}, "models of its kind do not support reference images"),
        (FLUX, {"reference_images": [{"image": image}]}, "no IP-Adapter for flux models is installed"),
        (KONTEXT, {"reference_images": [{"image": image, "weight": 0.5}]}, "remove `weight`"),
    ):
        body = {"prompt": PROMPT, "model": model, **request}
        answer = server.client.post("/api/v1/queue/default/enqueue_prompt", json=body)
        assert 400 <= answer.status_code < 500
        assert message in answer.text
