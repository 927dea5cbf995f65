"""Each node of ComfyUI's that is translated: what it draws, and that a real server runs it."""

import contextlib
import uuid
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import httpx
import orjson
import pytest
from PIL import Image

from invokeclone.graph.builder import GraphBuilder
from invokeclone.graph.invocations import registry
from invokeclone.graph.recipes import CannotBuild
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.shims.comfyui import history, record, store
from invokeclone.shims.comfyui.catalog import Catalog, LoadableImage
from invokeclone.shims.comfyui.node_types import BuildContext
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.nodes.denoising import fold_seed
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.samplers import SAMPLERS, SCHEDULES, scheduler_for
from invokeclone.shims.comfyui.translate import build_graph, translate
from invokeclone.shims.comfyui.workflow import WorkflowRejected, check
from tests.shims.comfyui import Comfy, image_to_image, text_to_image
from tests.shims.conftest import circle_image, mean_color, object_color, png, read_image


class Settings:
    """A model's own settings, as far as samplers ask for them."""

    steps = 12
    cfg_scale = 3.5
    scheduler = "unipc"
    width = 192
    height = 128


class Config:
    """A model record, as far as translating needs it."""

    def __init__(
        self,
        name: str,
        kind: str = "main",
        settings: Any = None,
        base: BaseModelType = BaseModelType.StableDiffusion1,
    ) -> None:
        self.key = self.hash = name.lower()
        self.name = self.path = name
        self.base = base
        self.type = kind
        self.default_settings = settings


def models(*configs: Config) -> list[ModelConfig]:
    return list(configs)  # type: ignore[arg-type]


CATALOG = Catalog(
    mains=models(Config("Embedded Tiny"), Config("Other", settings=Settings())),
    vaes=models(Config("Some VAE", "vae")),
    loras=models(
        Config("style", "lora"), Config("face", "lora"), Config("xl", "lora", base=BaseModelType.StableDiffusionXL)
    ),
    embeddings=models(Config("scribble", "embedding")),
    controls=models(
        Config("edges", "controlnet"),
        Config("depth", "t2i_adapter"),
        Config("xl edges", "controlnet", base=BaseModelType.StableDiffusionXL),
    ),
    loadable_images={
        "a.png": LoadableImage(100, 60, "a.png"),
        "sub/b.png [output]": LoadableImage(100, 60, "b.png"),
        "big.png": LoadableImage(8000, 2000, "big.png"),
    },
)


def nodes_of(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the graph's nodes by node and role: `comfy_0_denoise0` is `3.denoise0` for the node 3 at position 0."""
    builder = build_graph(workflow, check(workflow, CATALOG), CATALOG)
    ids = list(workflow)
    return {f"{record.comfy_id(ids, node)}.{role(node)}": fields for node, fields in builder.nodes.items()}


def role(node: str) -> str:
    return node.split("_", 2)[2]


def edges_of(workflow: dict[str, Any]) -> set[tuple[str, str]]:
    builder = build_graph(workflow, check(workflow, CATALOG), CATALOG)
    ids = list(workflow)

    def name_of(end: dict[str, str]) -> str:
        return f"{record.comfy_id(ids, end['node_id'])}.{role(end['node_id'])}.{end['field']}"

    return {(name_of(edge["source"]), name_of(edge["destination"])) for edge in builder.edges}


def refusal(workflow: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(WorkflowRejected) as refused:
        build_graph(workflow, check(workflow, CATALOG), CATALOG)
    return refused.value.body


def with_inputs(workflow: dict[str, Any], node: str, **inputs: Any) -> dict[str, Any]:
    workflow[node]["inputs"].update(inputs)
    return workflow


def sampler_with_range(**inputs: Any) -> dict[str, Any]:
    workflow = text_to_image()
    sampler_inputs = workflow["3"]["inputs"]
    del sampler_inputs["denoise"]
    sampler_inputs["noise_seed"] = sampler_inputs.pop("seed")
    sampler_inputs |= {
        "add_noise": "enable",
        "start_at_step": 0,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
        **inputs,
    }
    workflow["3"]["class_type"] = "KSamplerAdvanced"
    return workflow


# Samplers


@pytest.mark.parametrize("denoise", [1e-6, 1e-320])
def test_minimal_denoising_is_limited_to_1000_steps(denoise: float) -> None:
    nodes = nodes_of(with_inputs(image_to_image("a.png"), "3", denoise=denoise))
    assert nodes["3.denoise0"]["steps"] == 1000, "some samplers cannot run more"
    assert nodes["3.denoise0"]["denoising_start"] >= 0.999


def test_more_steps_than_1000_are_run() -> None:
    nodes = nodes_of(with_inputs(image_to_image("a.png"), "3", denoise=0.5, steps=2000))
    assert (nodes["3.denoise0"]["steps"], nodes["3.denoise0"]["denoising_start"]) == (4000, 0.5)


def test_workflow_is_translated_into_nodes() -> None:
    nodes = nodes_of(text_to_image(seed=7))
    assert {name: node["type"] for name, node in nodes.items()} == {
        "4.sd1_model_loader": "main_model_loader",
        "6.prompt": "compel",
        "7.prompt": "compel",
        "3.positive": "collect",
        "3.negative": "collect",
        "3.denoise0_noise": "noise",
        "3.denoise0": "denoise_latents",
        "3.metadata0": "core_metadata",
        "8.image0": "l2i",
        "9.save0": "save_image",
    }
    assert nodes["4.sd1_model_loader"]["model"]["key"] == "embedded tiny"
    assert (
        nodes["3.denoise0_noise"]["seed"],
        nodes["3.denoise0_noise"]["width"],
        nodes["3.denoise0_noise"]["height"],
    ) == (7, 128, 128)
    denoise = nodes["3.denoise0"]
    assert (denoise["steps"], denoise["cfg_scale"], denoise["scheduler"]) == (20, 8.0, "euler")
    assert (denoise["denoising_start"], denoise["denoising_end"]) == (0.0, 1.0)
    assert nodes["9.save0"]["is_intermediate"] is False
    assert all(node["is_intermediate"] for name, node in nodes.items() if name != "9.save0")
    assert edges_of(text_to_image()) == {
        ("4.sd1_model_loader.clip", "6.prompt.clip"),
        ("4.sd1_model_loader.clip", "7.prompt.clip"),
        ("6.prompt.conditioning", "3.positive.item"),
        ("7.prompt.conditioning", "3.negative.item"),
        ("3.positive.collection", "3.denoise0.positive_conditioning"),
        ("3.negative.collection", "3.denoise0.negative_conditioning"),
        ("4.sd1_model_loader.unet", "3.denoise0.unet"),
        ("3.denoise0_noise.noise", "3.denoise0.noise"),
        ("3.denoise0.latents", "8.image0.latents"),
        ("4.sd1_model_loader.vae", "8.image0.vae"),
        ("8.image0.image", "9.save0.image"),
        ("3.metadata0.metadata", "9.save0.metadata"),
    }


def test_only_nodes_needed_by_outputs_are_built() -> None:
    workflow = text_to_image()
    workflow["20"] = {"class_type": "LoadImage", "inputs": {"image": "nowhere.png"}}
    workflow["21"] = {"class_type": "Note", "inputs": {}}
    assert nodes_of(workflow).keys() == nodes_of(text_to_image()).keys()


@pytest.mark.parametrize(("seed", "expected"), [(0, 0), (2**32 - 1, 2**32 - 1), (2**32, 1), (2**64 - 1, 0)])
def test_seeds_fit_into_32_bits(seed: int, expected: int) -> None:
    assert fold_seed(seed) == expected
    assert nodes_of(text_to_image(seed=seed))["3.denoise0_noise"]["seed"] == expected


def test_batch_uses_consecutive_seeds() -> None:
    nodes = nodes_of(text_to_image(seed=2**32 - 1, batch_size=3))
    assert [nodes[f"3.denoise{index}_noise"]["seed"] for index in range(3)] == [2**32 - 1, 0, 1]
    assert {name for name in nodes if name.startswith("9.")} == {"9.save0", "9.save1", "9.save2"}


def test_partial_denoising_runs_all_steps_at_the_end_of_the_schedule() -> None:
    nodes = nodes_of(image_to_image("a.png", denoise=0.25))
    assert (nodes["3.denoise0"]["steps"], nodes["3.denoise0"]["denoising_start"]) == (80, 0.75)
    assert ("5.latents0.width", "3.denoise0_noise.width") in edges_of(image_to_image("a.png"))
    assert ("5.latents0.latents", "3.denoise0.latents") in edges_of(image_to_image("a.png"))
    assert "3.denoise0" not in nodes_of(image_to_image("a.png", denoise=0))


def test_step_range_becomes_denoising_start_and_end() -> None:
    nodes = nodes_of(sampler_with_range(start_at_step=5, end_at_step=15, return_with_leftover_noise="enable"))
    denoise = nodes["3.denoise0"]
    assert (denoise["steps"], denoise["denoising_start"], denoise["denoising_end"]) == (20, 0.25, 0.75)
    whole = nodes_of(sampler_with_range())["3.denoise0"]
    assert (whole["denoising_start"], whole["denoising_end"]) == (0.0, 1.0)
    assert "leftover_noise" in refusal(sampler_with_range(end_at_step=15))["error"]["details"]
    assert "empty" in refusal(sampler_with_range(add_noise="disable"))["error"]["details"]
    assert "empty" in refusal(sampler_with_range(start_at_step=20))["error"]["details"]


def test_unset_values_come_from_the_model_settings() -> None:
    workflow = with_inputs(text_to_image(width=None, height=None), "4", ckpt_name="Other")
    with_inputs(workflow, "3", steps=None, cfg=None, sampler_name=None, scheduler=None)
    nodes = nodes_of(workflow)
    denoise = nodes["3.denoise0"]
    assert (denoise["steps"], denoise["cfg_scale"], denoise["scheduler"]) == (12, 3.5, "unipc")
    assert (nodes["3.denoise0_noise"]["width"], nodes["3.denoise0_noise"]["height"]) == (192, 128)
    with_inputs(workflow, "4", ckpt_name=None)
    assert nodes_of(workflow)["4.sd1_model_loader"]["model"]["name"] == "Embedded Tiny"
    assert nodes_of(workflow)["3.denoise0_noise"]["width"] == 512


def test_sizes_are_rounded_to_the_grid() -> None:
    noise = nodes_of(text_to_image(width=100, height=67))["3.denoise0_noise"]
    assert (noise["width"], noise["height"]) == (104, 64)
    assert "too large" in refusal(text_to_image(width=8192, height=8192))["error"]["details"]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_sampler_has_a_scheduler(sampler: str, schedule: str) -> None:
    assert scheduler_for(sampler, schedule) in get_args(SCHEDULER_NAME_VALUES)


def test_karras_schedule_selects_the_karras_scheduler() -> None:
    assert scheduler_for("dpmpp_2m", "karras") == "dpmpp_2m_k"
    assert scheduler_for("dpmpp_2m", "normal") == "dpmpp_2m"


# Models and prompts


def test_models_are_found_by_name_ignoring_case() -> None:
    for name in ("Other", "other", "OTHER"):
        assert (
            nodes_of(with_inputs(text_to_image(), "4", ckpt_name=name))["4.sd1_model_loader"]["model"]["name"]
            == "Other"
        )


def test_model_parts_are_loaded_separately() -> None:
    workflow = text_to_image()
    workflow["4"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "Embedded Tiny", "weight_dtype": "default"}}
    workflow["40"] = {"class_type": "CLIPLoader", "inputs": {"clip_name": "Other", "type": "stable_diffusion"}}
    workflow["41"] = {"class_type": "VAELoader", "inputs": {"vae_name": "Some VAE"}}
    for node in ("6", "7"):
        workflow[node]["inputs"]["clip"] = ["40", 0]
    workflow["8"]["inputs"]["vae"] = ["41", 0]
    edges = edges_of(workflow)
    assert ("4.sd1_model_loader.unet", "3.denoise0.unet") in edges
    assert ("40.sd1_model_loader.clip", "6.prompt.clip") in edges
    assert ("41.vae.vae", "8.image0.vae") in edges
    assert nodes_of(workflow)["41.vae"]["vae_model"]["name"] == "Some VAE"
    workflow["41"]["inputs"]["vae_name"] = "Other"
    assert ("41.sd1_model_loader.vae", "8.image0.vae") in edges_of(workflow)


def test_prompts_are_weighed() -> None:
    workflow = with_inputs(text_to_image(), "6", text="a (red:1.3) [blue] cat++")
    assert nodes_of(workflow)["6.prompt"]["prompt"] == "a (red)1.3 [blue] cat ++"


def test_prompt_length_is_limited() -> None:
    assert (
        "limits.prompt_characters" in refusal(with_inputs(text_to_image(), "6", text="a" * 50_001))["error"]["details"]
    )


def test_clip_layers_are_skipped() -> None:
    workflow = text_to_image()
    workflow["20"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["4", 1], "stop_at_clip_layer": -2}}
    workflow["21"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["20", 0], "stop_at_clip_layer": -3}}
    workflow["6"]["inputs"]["clip"] = ["21", 0]
    nodes = nodes_of(workflow)
    assert nodes["21.clip_skip"]["skipped_layers"] == 2
    assert ("4.sd1_model_loader.clip", "21.clip_skip.clip") in edges_of(workflow), (
        "counted from the last one, whatever was skipped"
    )
    assert nodes["3.metadata0"]["clip_skip"] == 2
    with_inputs(workflow, "21", stop_at_clip_layer=-1)
    assert ("4.sd1_model_loader.clip", "6.prompt.clip") in edges_of(workflow)


def test_concatenated_prompts_are_collected() -> None:
    workflow = text_to_image()
    inputs = {"conditioning_to": ["6", 0], "conditioning_from": ["7", 0]}
    workflow["20"] = {"class_type": "ConditioningConcat", "inputs": inputs}
    workflow["3"]["inputs"]["positive"] = ["20", 0]
    edges = edges_of(workflow)
    assert {("6.prompt.conditioning", "3.positive.item"), ("7.prompt.conditioning", "3.positive.item")} <= edges


def regional() -> dict[str, Any]:
    workflow = text_to_image()
    workflow["30"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 128, "height": 128}}
    inputs = {"conditioning": ["6", 0], "mask": ["30", 0], "strength": 1.0, "set_cond_area": "default"}
    workflow["31"] = {"class_type": "ConditioningSetMask", "inputs": inputs}
    inputs = {"conditioning_1": ["31", 0], "conditioning_2": ["6", 0]}
    workflow["32"] = {"class_type": "ConditioningCombine", "inputs": inputs}
    workflow["3"]["inputs"]["positive"] = ["32", 0]
    return workflow


def test_masked_prompts_apply_to_white_mask_areas() -> None:
    edges = edges_of(regional())
    assert ("30.blank.image", "31.tensor.image") in edges
    assert ("31.tensor.mask", "31.prompt0.mask") in edges
    assert {("31.prompt0.conditioning", "3.positive.item"), ("6.prompt.conditioning", "3.positive.item")} <= edges
    assert "strength" in refusal(with_inputs(regional(), "31", strength=0.5))["error"]["details"]


def test_values_are_resolved_through_links() -> None:
    workflow = text_to_image()
    workflow["20"] = {"class_type": "PrimitiveInt", "inputs": {"value": 17}}
    workflow["21"] = {"class_type": "PrimitiveString", "inputs": {"value": "a dog"}}
    with_inputs(workflow, "3", steps=["20", 0], cfg=["20", 0])
    with_inputs(workflow, "6", text=["21", 0])
    nodes = nodes_of(workflow)
    assert (nodes["3.denoise0"]["steps"], nodes["3.denoise0"]["cfg_scale"]) == (17, 17.0)
    assert nodes["6.prompt"]["prompt"] == "a dog"
    with_inputs(workflow, "20", value=5000)
    assert refusal(workflow)["node_errors"]["3"]["class_type"] == "KSampler"


# Latents, pictures, masks


def inpainting(grow: int = 6) -> dict[str, Any]:
    workflow = image_to_image("a.png")
    inputs = {"pixels": ["10", 0], "vae": ["4", 2], "mask": ["10", 1], "grow_mask_by": grow}
    workflow["5"] = {"class_type": "VAEEncodeForInpaint", "inputs": inputs}
    return workflow


def test_inpainting_mask_is_built_from_alpha() -> None:
    edges = edges_of(inpainting())
    assert ("10.alpha.image", "5.grow.mask") in edges, "opaque is white, and stays"
    assert ("5.grow.image", "3.mask.mask") in edges
    assert ("10.image.image", "3.mask.image") in edges
    assert ("3.mask.denoise_mask", "3.denoise0.denoise_mask") in edges
    assert nodes_of(inpainting())["3.metadata0"]["generation_mode"] == "inpaint"
    assert ("10.alpha.image", "3.mask.mask") in edges_of(inpainting(grow=0))


def test_inverted_mask_is_built_only_when_needed() -> None:
    workflow = inpainting(grow=0)
    workflow["20"] = {"class_type": "InvertMask", "inputs": {"mask": ["10", 1]}}
    workflow["5"]["inputs"]["mask"] = ["20", 0]
    assert ("10.alpha.image", "3.keep_mask.image") in edges_of(workflow)
    assert nodes_of(workflow)["3.keep_mask"] | {"type": "tomask", "invert": True} == nodes_of(workflow)["3.keep_mask"]
    workflow["20"] = {"class_type": "LoadImageMask", "inputs": {"image": "a.png", "channel": "red"}}
    assert nodes_of(workflow)["20.channel"]["channel"] == "R"
    assert ("3.keep_mask.image", "3.mask.mask") in edges_of(workflow)


def test_mask_on_empty_latents_is_refused() -> None:
    workflow = text_to_image()
    workflow["10"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    workflow["20"] = {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["5", 0], "mask": ["10", 1]}}
    workflow["3"]["inputs"]["latent_image"] = ["20", 0]
    assert "empty" in refusal(workflow)["error"]["details"]


def test_latents_are_resized() -> None:
    workflow = text_to_image()
    inputs = {"samples": ["3", 0], "upscale_method": "bislerp", "width": 256, "height": 0, "crop": "disabled"}
    workflow["20"] = {"class_type": "LatentUpscale", "inputs": inputs}
    workflow["8"]["inputs"]["samples"] = ["20", 0]
    node = nodes_of(workflow)["20.resize0"]
    assert (node["type"], node["width"], node["height"], node["mode"]) == ("lresize", 256, 256, "bicubic")
    inputs = {"samples": ["3", 0], "upscale_method": "area", "scale_by": 1.5}
    workflow["20"] = {"class_type": "LatentUpscaleBy", "inputs": inputs}
    assert nodes_of(workflow)["20.resize0"]["width"] == 192
    assert (
        "is not set"
        in refusal(with_inputs(workflow, "20", samples=["5", 0]) | {"5": text_to_image(width=None)["5"]})["error"][
            "details"
        ]
    )


def scaling_nodes(kind: str, picture: str = "a.png", **inputs: Any) -> dict[str, dict[str, Any]]:
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "2": {"class_type": kind, "inputs": {"image": ["1", 0], **inputs}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": ""}},
    }
    return nodes_of(workflow)


def test_images_are_resized() -> None:
    method = {"upscale_method": "area"}
    node = scaling_nodes("ImageScale", width=50, height=0, crop="disabled", **method)["2.resize0"]
    assert (node["width"], node["height"], node["resample_mode"]) == (50, 30, "box")
    cut = scaling_nodes("ImageScale", width=60, height=60, crop="center", **method)["2.crop0"]
    assert (cut["x"], cut["y"], cut["width"], cut["height"]) == (20, 0, 60, 60)
    node = scaling_nodes("ImageScaleBy", scale_by=2, **method)["2.resize0"]
    assert (node["width"], node["height"]) == (200, 120)
    node = scaling_nodes("ImageScaleToTotalPixels", megapixels=1, **method)["2.resize0"]
    assert abs(node["width"] * node["height"] - 1024 * 1024) < 2000
    with pytest.raises(WorkflowRejected, match="too large"):
        scaling_nodes("ImageScaleBy", "big.png", scale_by=2, **method)


def test_oversized_images_are_not_encoded() -> None:
    huge = replace(CATALOG, loadable_images={"a.png": LoadableImage(8192, 8192, "a.png")})
    workflow = image_to_image("a.png")
    with pytest.raises(WorkflowRejected, match="too large"):
        build_graph(workflow, check(workflow, huge), huge)


def test_crop_rectangle_stays_inside_the_image() -> None:
    cut = scaling_nodes("ImageCrop", x=90, y=50, width=500, height=5)["2.crop0"]
    assert (cut["x"], cut["y"], cut["width"], cut["height"]) == (90, 50, 10, 5)


def test_padded_area_is_the_area_to_repaint() -> None:
    nodes = scaling_nodes("ImagePadForOutpaint", left=8, top=0, right=16, bottom=0, feathering=10)
    assert (nodes["2.pad0"]["left"], nodes["2.pad0"]["right"]) == (8, 16)
    assert nodes["2.fade"]["fade_size_px"] == 10


def test_at_most_sixteen_images_are_generated() -> None:
    workflow = text_to_image(batch_size=8)
    workflow["20"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["5", 0], "amount": 3}}
    workflow["3"]["inputs"]["latent_image"] = ["20", 0]
    assert "at most 16" in refusal(workflow)["error"]["details"]
    with_inputs(workflow, "20", amount=2)
    assert "9.save15" in nodes_of(workflow)
    workflow["22"] = {"class_type": "LatentFromBatch", "inputs": {"samples": ["3", 0], "batch_index": 14, "length": 9}}
    workflow["8"]["inputs"]["samples"] = ["22", 0]
    nodes = nodes_of(workflow)
    assert "9.save1" in nodes
    assert "9.save2" not in nodes


def test_missing_images_are_refused() -> None:
    body = refusal(image_to_image("missing.png"))
    assert body["node_errors"]["10"]["errors"][0]["type"] == "custom_validation_failed"
    assert "missing.png" in body["error"]["details"]
    assert nodes_of(image_to_image("sub/b.png [output]"))["10.image"]["image"] == {"image_name": "b.png"}


# LoRAs


def with_lora(name: str = "style", **overrides: Any) -> dict[str, Any]:
    """Return a workflow whose sampler and prompts go through a LoraLoader, node 20."""
    workflow = text_to_image()
    inputs = {"lora_name": name, "model": ["4", 0], "clip": ["4", 1], "strength_model": 0.8, "strength_clip": 0.8}
    workflow["20"] = {"class_type": "LoraLoader", "inputs": inputs | overrides}
    workflow["3"]["inputs"]["model"] = ["20", 0]
    for prompt in ("6", "7"):
        workflow[prompt]["inputs"]["clip"] = ["20", 1]
    return workflow


def lora_field(name: str, weight: float) -> dict[str, Any]:
    return {"lora": {"key": name, "hash": name, "name": name, "base": "sd-1", "type": "lora"}, "weight": weight}


def test_a_lora_is_applied_to_the_denoiser_and_the_prompts() -> None:
    workflow = with_lora()
    node = nodes_of(workflow)["20.lora"]
    assert (node["type"], node["loras"]) == ("lora_collection_loader", [lora_field("style", 0.8)])
    edges = edges_of(workflow)
    assert {
        ("20.lora.unet", "3.denoise0.unet"),
        ("20.lora.clip", "6.prompt.clip"),
        ("20.lora.clip", "7.prompt.clip"),
    } <= edges
    assert not {edge for edge in edges if edge[1] == "3.denoise0.unet"} - {("20.lora.unet", "3.denoise0.unet")}


def test_a_lora_with_two_strengths_is_two_nodes() -> None:
    workflow = with_lora(strength_clip=0.5)
    nodes, edges = nodes_of(workflow), edges_of(workflow)
    assert nodes["20.lora"]["loras"] == [lora_field("style", 0.8)]
    assert nodes["20.lora_text"]["loras"] == [lora_field("style", 0.5)]
    assert {("20.lora.unet", "3.denoise0.unet"), ("20.lora_text.clip", "6.prompt.clip")} <= edges


def test_loras_are_chained_and_layers_can_be_skipped_before_and_after() -> None:
    workflow = with_lora()
    workflow["21"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"lora_name": "face", "model": ["20", 0], "strength_model": 0.3},
    }
    workflow["3"]["inputs"]["model"] = ["21", 0]
    workflow["22"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["20", 1], "stop_at_clip_layer": -2}}
    workflow["6"]["inputs"]["clip"] = ["22", 0]
    edges = edges_of(workflow)
    assert {("20.lora.unet", "21.lora.unet"), ("21.lora.unet", "3.denoise0.unet")} <= edges
    assert {("20.lora.clip", "22.clip_skip.clip"), ("22.clip_skip.clip", "6.prompt.clip")} <= edges
    workflow["22"]["inputs"]["clip"] = ["4", 1]
    workflow["20"]["inputs"]["clip"] = ["22", 0]
    workflow["6"]["inputs"]["clip"] = ["20", 1]
    edges = edges_of(workflow)
    assert {("20.lora.clip", "20.clip_skip.clip"), ("20.clip_skip.clip", "6.prompt.clip")} <= edges


def test_a_lora_of_another_base_is_refused() -> None:
    assert "the LoRA xl is for sdxl models, Embedded Tiny is sd-1" in refusal(with_lora("xl"))["error"]["details"]


def test_embeddings_are_named_in_prompts() -> None:
    workflow = with_inputs(text_to_image(), "6", text="a cat, (embedding:scribble:1.2)")
    assert nodes_of(workflow)["6.prompt"]["prompt"] == "a cat, (<scribble>)1.2"


# ControlNets


def with_controls(*names: str, **overrides: Any) -> dict[str, Any]:
    """Return a workflow in which each of the control models follows the picture a.png; their nodes are 31, 33 and so on."""
    workflow = text_to_image()
    workflow["20"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    sides = {"positive": ["6", 0], "negative": ["7", 0]}
    for number, name in enumerate(names):
        loader, applied = str(30 + 2 * number), str(31 + 2 * number)
        workflow[loader] = {"class_type": "ControlNetLoader", "inputs": {"control_net_name": name}}
        inputs = {
            "control_net": [loader, 0],
            "image": ["20", 0],
            "strength": 0.7,
            "start_percent": 0.1,
            "end_percent": 0.6,
        }
        workflow[applied] = {"class_type": "ControlNetApplyAdvanced", "inputs": inputs | sides | overrides}
        sides = {"positive": [applied, 0], "negative": [applied, 1]}
    workflow["3"]["inputs"] |= sides
    return workflow


def test_control_models_are_connected_to_the_sampler() -> None:
    workflow = with_controls("edges", "depth")
    nodes, edges = nodes_of(workflow), edges_of(workflow)
    net = nodes["3.denoise0_controlnet_0"]
    assert (net["type"], net["control_model"]["key"], net["control_weight"]) == ("controlnet", "edges", 0.7)
    assert (net["begin_step_percent"], net["end_step_percent"]) == (0.1, 0.6)
    adapter = nodes["3.denoise0_t2i_adapter_0"]
    assert (adapter["t2i_adapter_model"]["key"], adapter["weight"]) == ("depth", 0.7)
    assert {("20.image.image", f"3.denoise0_{name}_0.image") for name in ("controlnet", "t2i_adapter")} <= edges


def test_simple_control_node_applies_to_all_steps() -> None:
    workflow = with_controls("edges")
    inputs = {"conditioning": ["6", 0], "control_net": ["30", 0], "image": ["20", 0], "strength": 1.0}
    workflow["31"] = {"class_type": "ControlNetApply", "inputs": inputs}
    workflow["3"]["inputs"] |= {"positive": ["31", 0], "negative": ["7", 0]}
    net = nodes_of(workflow)["3.denoise0_controlnet_0"]
    assert (net["control_weight"], net["begin_step_percent"], net["end_step_percent"]) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"start_percent": 0.6}])
def test_disabled_controls_add_no_nodes(off: dict[str, float]) -> None:
    assert not [name for name in nodes_of(with_controls("edges", **off)) if "controlnet" in name]


def test_incompatible_control_models_and_strengths_are_refused() -> None:
    assert "xl edges is for sdxl models" in refusal(with_controls("xl edges"))["error"]["details"]
    assert "at most 2, not 3" in refusal(with_controls("edges", strength=3.0))["error"]["details"]


# What cannot be done


@pytest.mark.parametrize(
    ("listed", "added", "user", "field"),
    [
        (
            "model_name",
            {
                "21": ("ImageUpscaleWithModel", {"upscale_model": ["20", 0], "image": ["8", 0]}),
                "20": ("UpscaleModelLoader", {"model_name": "a.safetensors"}),
            },
            "9",
            "images",
        ),
    ],
)
def test_unusable_models_are_not_listed(
    listed: str, added: dict[str, tuple[str, dict[str, Any]]], user: str, field: str
) -> None:
    workflow = text_to_image()
    workflow |= {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in added.items()}
    workflow[user]["inputs"][field] = [next(iter(added)), 0]
    body = refusal(workflow)
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    (error,) = body["node_errors"]["20"]["errors"]
    assert error["type"] == "value_not_in_list"
    assert error["details"] == f"{listed}: 'a.safetensors' not in []"
    assert TYPES[workflow["20"]["class_type"]].describe(CATALOG)["input"]["required"][listed][0] == []
    kind, inputs = next(iter(added.values()))
    with pytest.raises(CannotBuild, match="are not supported yet"):
        TYPES[kind].build(BuildContext(GraphBuilder("x"), CATALOG), **inputs)


def test_every_node_has_a_complete_description() -> None:
    for name, kind in TYPES.items():
        info = kind.describe(CATALOG)
        assert info["name"] == name
        assert info["display_name"]
        assert info["description"], name
        assert len(info["output"]) == len(info["output_name"]) == len(info["output_is_list"])
        assert info["input_order"]["required"] == list(info["input"]["required"])
        assert info["output_node"] is (name in ("SaveImage", "PreviewImage", "SaveImageWebsocket"))
    required = TYPES["KSampler"].describe(CATALOG)["input"]["required"]
    assert required["seed"] == ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}]
    assert "dpmpp_2m" in required["sampler_name"][0]
    assert TYPES["UNETLoader"].describe(CATALOG)["input"]["required"]["unet_name"][0] == ["Embedded Tiny", "Other"]


def test_workflow_is_stored_with_the_item() -> None:
    registry.discover()
    workflow = text_to_image()
    prompt_record = PromptRecord(workflow, ["9"], "me", {"x": 1})
    submitted = replace(prompt_record, outputs=[])
    batch = translate(submitted, CATALOG, "3fa85f64-5717-4562-b3fc-2c963f66afa6").batch
    assert (batch.origin, batch.batch_id, batch.requested) == ("comfyui", "3fa85f64-5717-4562-b3fc-2c963f66afa6", 1)
    session = {"graph": batch.graph.model_dump(mode="json")}
    assert record.of_session(session) == prompt_record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"prompt": []}',
        '{"prompt": {}, "outputs": [], "client_id": ["a"]}',
        '{"prompt": {"1": 5}, "outputs": []}',
        '{"prompt": {"1": {}}, "outputs": []}',
    ],
)
def test_unrelated_text_node_is_not_a_workflow_record(text: str) -> None:
    assert PromptRecord.read(text) is None
    assert record.of_session({"graph": {"nodes": {record.NODE: {"type": "string", "value": text}}}}) is None
    assert record.of_session({"graph": {"nodes": {record.NODE: {"type": "noise"}}}}) is None


async def test_history_longer_than_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = GraphBuilder("comfyui")
    record.add_to_graph(graph, PromptRecord(text_to_image(), ["9"]))
    session = orjson.dumps(
        {"graph": {"nodes": graph.nodes}, "results": {}, "errors": {}, "prepared_source_mapping": {}}
    ).decode()
    at = "2026-01-01 00:00:00.000"
    items: list[Any] = [
        SimpleNamespace(
            item_id=number,
            session_id=str(uuid.uuid4()),
            batch_id=str(number),
            status="completed",
            created_at=at,
            started_at=at,
            completed_at=at,
        )
        for number in range(4)
    ]
    read: list[list[int]] = []

    async def sessions(_connection: Any, item_ids: list[int]) -> dict[int, str]:
        read.append(item_ids)
        return dict.fromkeys(item_ids, session)

    monkeypatch.setattr(history, "MAX_CACHED_ENTRIES", 2)
    monkeypatch.setattr(history, "_cached_entries", OrderedDict())
    monkeypatch.setattr(store, "sessions", sessions)
    nothing: Any = SimpleNamespace(read=contextlib.nullcontext)
    assert list(await history.entries_of(nothing, items[2:])) == ["2", "3"]
    assert list(await history.entries_of(nothing, items)) == ["0", "1", "2", "3"]
    assert list(await history.entries_of(nothing, items[:2])) == ["0", "1"]
    assert read == [[2, 3], [0, 1]]


# All of them on a real server


def test_a_real_server_runs_every_node(http: httpx.Client) -> None:
    comfy = Comfy(http)
    hole = Image.new("RGBA", (128, 128), (255, 255, 255, 255))
    hole.paste((220, 30, 30, 0), (32, 32, 96, 96))
    name = comfy.upload(png(hole))
    other = comfy.upload(png(circle_image(96)))
    workflow = text_to_image()
    run = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "cfg": 4, "scheduler": "karras"}
    ends = {"start_at_step": 0, "end_at_step": 3, "return_with_leftover_noise": "enable", "add_noise": "enable"}
    rest = {"start_at_step": 3, "end_at_step": 99, "return_with_leftover_noise": "disable", "add_noise": "disable"}
    quick = run | {"noise_seed": 1, "steps": 6, "sampler_name": "dpmpp_2m"}
    short = run | {"seed": 2**63, "steps": 4, "sampler_name": "ddim", "denoise": 1.0}
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "20": ("KSamplerAdvanced", quick | ends | {"latent_image": ["5", 0]}),
        "21": ("KSamplerAdvanced", quick | rest | {"latent_image": ["20", 0], "positive": ["34", 0]}),
        "22": ("LatentUpscaleBy", {"samples": ["21", 0], "upscale_method": "nearest-exact", "scale_by": 1.5}),
        "23": ("LatentUpscale", {"samples": ["22", 0], "upscale_method": "area", "width": 128, "height": 128, "crop": "disabled"}),
        "24": ("KSampler", short | {"latent_image": ["23", 0], "denoise": 0.5, "model": ["40", 0]}),
        "25": ("VAEDecodeTiled", {"samples": ["24", 0], "vae": ["42", 0], "tile_size": 64, "overlap": 16}),
        "26": ("SaveImage", {"images": ["25", 0], "filename_prefix": "x"}),
        "30": ("SolidMask", {"value": 1.0, "width": 128, "height": 128}),
        "31": ("ConditioningSetMask", {"conditioning": ["6", 0], "mask": ["30", 0], "strength": 1, "set_cond_area": "default"}),
        "32": ("CLIPSetLastLayer", {"clip": ["41", 0], "stop_at_clip_layer": -1}),
        "33": ("CLIPTextEncode", {"clip": ["32", 0], "text": ["36", 0]}),
        "37": ("CLIPTextEncode", {"clip": ["43", 0], "text": "a square"}),
        "34": ("ConditioningCombine", {"conditioning_1": ["31", 0], "conditioning_2": ["35", 0]}),
        "35": ("ConditioningConcat", {"conditioning_to": ["33", 0], "conditioning_from": ["37", 0]}),
        "36": ("PrimitiveStringMultiline", {"value": "a (red:1.2) circle"}),
        "40": ("UNETLoader", {"unet_name": "Embedded Tiny", "weight_dtype": "default"}),
        "41": ("CLIPLoader", {"clip_name": "Embedded Tiny", "type": "any other"}),
        "43": ("DualCLIPLoader", {"clip_name1": "Embedded Tiny", "clip_name2": "Embedded Tiny", "type": "x"}),
        "44": ("LoadImageOutput", {"image": f"{name} [input]"}),
        "45": ("SaveImageWebsocket", {"images": ["44", 0]}),
        "42": ("VAELoader", {"vae_name": "Embedded Tiny"}),
        "50": ("LoadImage", {"image": name}),
        "51": ("ImagePadForOutpaint", {"image": ["50", 0], "left": 64, "top": 0, "right": 0, "bottom": 0, "feathering": 8}),
        "52": ("VAEEncodeForInpaint", {"pixels": ["51", 0], "vae": ["4", 2], "mask": ["51", 1], "grow_mask_by": 6}),
        "53": ("KSampler", short | {"latent_image": ["52", 0]}),
        "54": ("VAEDecode", {"samples": ["53", 0], "vae": ["4", 2]}),
        "55": ("PreviewImage", {"images": ["54", 0]}),
        "60": ("LoadImage", {"image": other}),
        "61": ("ImageBatch", {"image1": ["50", 0], "image2": ["60", 0]}),
        "62": ("ImageScale", {"image": ["61", 0], "upscale_method": "lanczos", "width": 96, "height": 64, "crop": "center"}),
        "63": ("ImageInvert", {"image": ["62", 0]}),
        "64": ("RepeatImageBatch", {"image": ["63", 0], "amount": 2}),
        "65": ("ImageFromBatch", {"image": ["64", 0], "batch_index": 1, "length": 2}),
        "66": ("ImageCrop", {"image": ["65", 0], "x": 0, "y": 0, "width": 64, "height": 64}),
        "67": ("ImageScaleBy", {"image": ["66", 0], "upscale_method": "bicubic", "scale_by": 2}),
        "68": ("ImageScaleToTotalPixels", {"image": ["67", 0], "upscale_method": "area", "megapixels": 0.01}),
        "69": ("SaveImage", {"images": ["68", 0], "filename_prefix": "x"}),
        "70": ("LoadImageMask", {"image": name, "channel": "alpha"}),
        "71": ("InvertMask", {"mask": ["70", 0]}),
        "72": ("MaskToImage", {"mask": ["71", 0]}),
        "73": ("PreviewImage", {"images": ["72", 0]}),
        "74": ("ImageToMask", {"image": ["80", 0], "channel": "red"}),
        "75": ("VAEEncode", {"pixels": ["50", 0], "vae": ["4", 2]}),
        "76": ("SetLatentNoiseMask", {"samples": ["75", 0], "mask": ["74", 0]}),
        "77": ("RepeatLatentBatch", {"samples": ["76", 0], "amount": 2}),
        "78": ("KSampler", short | {"latent_image": ["77", 0], "steps": ["81", 0], "cfg": ["82", 0]}),
        "79": ("LatentFromBatch", {"samples": ["78", 0], "batch_index": 0, "length": 1}),
        "83": ("VAEDecode", {"samples": ["79", 0], "vae": ["4", 2]}),
        "84": ("PreviewImage", {"images": ["83", 0]}),
        "80": ("EmptyImage", {"width": 128, "height": 128, "batch_size": 1, "color": 0xFF0000}),
        "81": ("PrimitiveInt", {"value": 4}),
        "82": ("PrimitiveFloat", {"value": 3.5}),
        "90": ("RandomNoise", {"noise_seed": 3}),
        "91": ("KSamplerSelect", {"sampler_name": "euler"}),
        "92": ("BasicScheduler", {"model": ["4", 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}),
        "93": ("SplitSigmas", {"sigmas": ["92", 0], "step": 2}),
        "94": ("BasicGuider", {"model": ["112", 0], "conditioning": ["113", 0]}),
        "95": ("SamplerCustomAdvanced", {"noise": ["90", 0], "guider": ["94", 0], "sampler": ["91", 0], "sigmas": ["93", 0], "latent_image": ["5", 0]}),
        "96": ("DisableNoise", {}),
        "97": ("ConditioningZeroOut", {"conditioning": ["6", 0]}),
        "98": ("CFGGuider", {"model": ["4", 0], "positive": ["6", 0], "negative": ["97", 0], "cfg": 4.0}),
        "99": ("SamplerCustomAdvanced", {"noise": ["96", 0], "guider": ["98", 0], "sampler": ["91", 0], "sigmas": ["93", 1], "latent_image": ["95", 0]}),
        "100": ("SplitSigmasDenoise", {"sigmas": ["92", 0], "denoise": 0.5}),
        "101": ("ImageStitch", {"image1": ["50", 0], "image2": ["60", 0], "direction": "left", "match_image_size": True, "spacing_width": 8, "spacing_color": "red"}),
        "102": ("ImageScale", {"image": ["101", 0], "upscale_method": "bilinear", "width": ["111", 0], "height": ["111", 1], "crop": "center"}),
        "103": ("InpaintModelConditioning", {"positive": ["6", 0], "negative": ["7", 0], "vae": ["4", 2], "pixels": ["102", 0], "mask": ["50", 1], "noise_mask": True}),
        "104": ("SamplerCustom", {"model": ["4", 0], "add_noise": True, "noise_seed": 1, "cfg": 3.0, "positive": ["103", 0], "negative": ["103", 1], "sampler": ["91", 0], "sigmas": ["100", 1], "latent_image": ["103", 2]}),
        "105": ("VAEDecode", {"samples": ["99", 0], "vae": ["4", 2]}),
        "106": ("VAEDecode", {"samples": ["104", 1], "vae": ["4", 2]}),
        "107": ("PreviewImage", {"images": ["105", 0]}),
        "108": ("PreviewImage", {"images": ["106", 0]}),
        "109": ("Canny", {"image": ["60", 0], "low_threshold": 0.1, "high_threshold": 0.3}),
        "110": ("PreviewImage", {"images": ["109", 0]}),
        "111": ("GetImageSize", {"image": ["50", 0]}),
        "112": ("DifferentialDiffusion", {"model": ["4", 0]}),
        "113": ("ConditioningSetTimestepRange", {"conditioning": ["6", 0], "start": 0.0, "end": 1.0}),
    }  # fmt: skip
    workflow |= {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}
    tested = {node["class_type"] for node in workflow.values()}
    untested = ("Lora", "Control", "UpscaleModel", "SDXL", "IPAdapter", "CLIPVision", "StyleModel", "unCLIP")
    untested += ("Flux", "SD3", "TripleCLIP", "ReferenceLatent", "GGUF", "AuraFlow", "InstructPix", "ModelPatch")
    untested += ("DiffsynthControlnet", "FunControlnet")
    absent = {name for name in TYPES if any(part in name for part in untested)}  # other tests run those that work
    assert set(TYPES) - tested == absent | {
        "PrimitiveString",
        "PrimitiveBoolean",
        "ImageUpscaleWithModel",
    }
    entry = comfy.run(workflow)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    outputs = entry["outputs"]
    assert {node: len(output["images"]) for node, output in outputs.items()} == {
        "9": 1,
        "26": 1,
        "55": 1,
        "69": 2,
        "73": 1,
        "84": 1,
        "107": 1,
        "108": 1,
        "110": 1,
    }
    pictures = {node: read_image(comfy.pictures(entry, node)[0]) for node in outputs}
    assert pictures["26"].size == (128, 128)
    red, _, blue = object_color(pictures["26"])
    assert red > blue + 40
    assert pictures["55"].size == (192, 128)
    mean = mean_color(pictures["55"], (160, 4, 190, 124))
    assert min(mean) > 225, "what was there is still there"
    assert min(mean_color(pictures["9"], (4, 4, 20, 20))) > 180
    assert pictures["69"].size == (102, 102)
    assert pictures["73"].getpixel((4, 4)) == (255, 255, 255), "the mask was inverted: what is opaque is white"
    assert pictures["73"].getpixel((64, 64)) == (0, 0, 0)
    assert read_image(comfy.pictures(entry, "69")[0]).mode == "RGB"
    assert pictures["107"].size == pictures["108"].size == (128, 128)
