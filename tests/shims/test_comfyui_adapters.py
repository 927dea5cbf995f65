"""ComfyUI's nodes of LoRAs that repeat, IP-Adapters, SDXL's prompts and its refiner: what they draw, and what is refused."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat
from invokeclone.shims.comfyui import record
from invokeclone.shims.comfyui.catalog import Catalog
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.translate import build_graph
from invokeclone.shims.comfyui.workflow import WorkflowRejected, check
from tests.shims.comfyui import text_to_image
from tests.shims.test_comfyui_nodes import CATALOG, Config, lora_field, models, nodes_of, role, with_inputs, with_lora

XL, REFINER = BaseModelType.StableDiffusionXL, BaseModelType.StableDiffusionXLRefiner


def adapter(name: str, base: BaseModelType = BaseModelType.StableDiffusion1, **fields: Any) -> Any:
    config = Config(name, "ip_adapter", base=base)
    return SimpleNamespace(**vars(config) | {"format": ModelFormat.Checkpoint} | fields)


ENCODER = "IP Adapter SD1.5 Image Encoder"
LIBRARY = replace(
    CATALOG,
    mains=[*CATALOG.mains, *models(Config("XL", base=XL), Config("Refiner", base=REFINER))],
    ip_adapters=[
        adapter("ip-adapter_sd15"),
        adapter("ip-adapter_sdxl", XL),
        adapter("folder", format=ModelFormat.InvokeAI, image_encoder_model_id="InvokeAI/ip_adapter_sd_image_encoder"),
    ],
    image_encoders=models(Config(ENCODER, "clip_vision"), Config("someone's encoder", "clip_vision")),
)


def build_nodes(workflow: dict[str, Any], catalog: Catalog = LIBRARY) -> dict[str, dict[str, Any]]:
    """Return the graph's nodes as `nodes_of` does."""
    builder = build_graph(workflow, check(workflow, catalog), catalog)
    ids = list(workflow)
    return {f"{record.comfy_id(ids, node)}.{role(node)}": fields for node, fields in builder.nodes.items()}


def why(workflow: dict[str, Any], catalog: Catalog = LIBRARY) -> str:
    """Return why a workflow is refused."""
    with pytest.raises(WorkflowRejected) as refused:
        build_graph(workflow, check(workflow, catalog), catalog)
    return str(refused.value.body["error"]["details"])


# LoRAs


def test_missing_clip_strength_defaults_to_model_strength() -> None:
    nodes = nodes_of(with_lora(strength_clip=None))
    assert nodes["20.lora"]["loras"] == [lora_field("style", 0.8)]
    assert "20.lora_text" not in nodes


def again(kind: str, **inputs: Any) -> dict[str, Any]:
    """Return a workflow with the LoRAs style and face, and style again."""
    workflow = with_lora()
    workflow["21"] = {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "face", "model": ["20", 0], "clip": ["20", 1], "strength_model": 0.3}
        | {"strength_clip": 0.3},
    }
    workflow["22"] = {"class_type": kind, "inputs": {"lora_name": "style", "model": ["21", 0]} | inputs}
    workflow["3"]["inputs"]["model"] = ["22", 0]
    for prompt in ("6", "7"):
        workflow[prompt]["inputs"]["clip"] = ["22" if kind == "LoraLoader" else "21", 1]
    return workflow


def leading_to(workflow: dict[str, Any], end: str) -> str:
    builder = build_graph(workflow, check(workflow, LIBRARY), LIBRARY)
    ids = list(workflow)
    for edge in builder.edges:
        destination = edge["destination"]
        if (
            f"{record.comfy_id(ids, destination['node_id'])}.{role(destination['node_id'])}.{destination['field']}"
            == end
        ):
            source = edge["source"]
            return f"{record.comfy_id(ids, source['node_id'])}.{role(source['node_id'])}.{source['field']}"
    raise AssertionError(end)


def test_weights_of_a_repeated_lora_are_added() -> None:
    """A LoRA cannot be applied twice to a model part: one node applies all of them to the bare model."""
    workflow = again("LoraLoader", clip=["21", 1], strength_model=0.25, strength_clip=0.25)
    nodes = build_nodes(workflow)
    assert nodes["22.lora"]["loras"] == [lora_field("style", 1.05), lora_field("face", 0.3)]
    assert "22.lora_text" not in nodes
    assert leading_to(workflow, "3.denoise0.unet") == "22.lora.unet"
    assert leading_to(workflow, "22.lora.unet") == "4.sd1_model_loader.unet"
    assert leading_to(workflow, "22.lora.clip") == "4.sd1_model_loader.clip"
    recorded = build_nodes(workflow)["3.metadata0"]["loras"]
    assert [(lora["model"]["name"], lora["weight"]) for lora in recorded] == [("style", 1.05), ("face", 0.3)]


def test_repeated_lora_on_the_denoiser_only() -> None:
    workflow = again("LoraLoaderModelOnly", strength_model=-0.8)
    assert build_nodes(workflow)["22.lora"]["loras"] == [lora_field("style", 0.0), lora_field("face", 0.3)]
    assert leading_to(workflow, "22.lora.unet") == "4.sd1_model_loader.unet"
    assert leading_to(workflow, "6.prompt.clip") == "21.lora.clip"


# IP-Adapters


def referring(kind: str = "IPAdapterAdvanced", name: str = "ip-adapter_sd15", **inputs: Any) -> dict[str, Any]:
    """Return a workflow whose model has the image a.png as a prompt, by the node 32."""
    workflow = text_to_image()
    workflow["20"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    workflow["30"] = {"class_type": "IPAdapterModelLoader", "inputs": {"ipadapter_file": name}}
    workflow["31"] = {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": ENCODER}}
    fields = {"model": ["4", 0], "ipadapter": ["30", 0], "image": ["20", 0], "weight": 0.5}
    fields |= {"start_at": 0.25, "end_at": 0.75}
    if kind == "IPAdapterAdvanced":
        fields |= {"weight_type": "composition", "combine_embeds": "concat", "embeds_scaling": "V only"}
    else:
        fields |= {"weight_type": "style transfer"}
    workflow["32"] = {"class_type": kind, "inputs": fields | inputs}
    workflow["3"]["inputs"]["model"] = ["32", 0]
    return workflow


@pytest.mark.parametrize(("kind", "method"), [("IPAdapter", "style"), ("IPAdapterAdvanced", "composition")])
def test_reference_images_reach_the_sampler(kind: str, method: str) -> None:
    node = build_nodes(referring(kind))["3.denoise0_ip_adapter_0"]
    assert node["ip_adapter_model"]["name"] == "ip-adapter_sd15"
    assert (node["weight"], node["method"], node["clip_vision_model"]) == (0.5, method, "ViT-H")
    assert (node["begin_step_percent"], node["end_step_percent"]) == (0.25, 0.75)


def test_several_reference_images_and_masks() -> None:
    workflow = referring(attn_mask=["33", 0], clip_vision=["31", 0])
    workflow["33"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}}
    workflow["34"] = {"class_type": "IPAdapter", "inputs": workflow["32"]["inputs"] | {"model": ["32", 0]}}
    workflow["34"]["inputs"] |= {"weight_type": "standard"}
    workflow["3"]["inputs"]["model"] = ["34", 0]
    nodes = build_nodes(workflow)
    assert nodes["3.denoise0_ip_adapter_0_mask"]["type"] == "image_mask_to_tensor"
    assert nodes["3.denoise0_ip_adapter_1"]["method"] == "full"
    assert leading_to(workflow, "3.denoise0.ip_adapter") == "3.denoise0_ip_adapter_collect.collection"


@pytest.mark.parametrize("off", [{"weight": 0.0}, {"start_at": 0.75}])
def test_disabled_reference_images_add_no_nodes(off: dict[str, float]) -> None:
    assert not any("ip_adapter" in node for node in build_nodes(referring(**off)))


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"name": "ip-adapter_sdxl"}, "ViT-G is not installed: install h94/IP-Adapter::sdxl_models/image_encoder"),
        ({"name": "ip-adapter_sdxl", "clip_vision": ["31", 0]}, "ip-adapter_sdxl is for sdxl models, Embedded Tiny is"),
        ({"name": "nothing"}, "'nothing' not in"),
        ({"weight": 2.5}, "at most 2"),
        ({"weight_type": "ease in"}, "'ease in' not in"),
        ({"embeds_scaling": "K+V"}, "'K+V' not in"),
        ({"image_negative": ["20", 0]}, "negative images are not supported"),
        ({"image": ["33", 0]}, "takes one image"),
        ({"clip_vision": ["34", 0]}, "someone's encoder is not a known image encoder"),
    ],
)
def test_unsupported_reference_images_are_refused(inputs: dict[str, Any], problem: str) -> None:
    workflow = referring(**inputs)
    workflow["33"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["20", 0], "amount": 2}}
    workflow["34"] = {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "someone's encoder"}}
    assert problem in why(workflow)


def test_a_folder_names_its_own_image_encoder() -> None:
    nodes = build_nodes(referring(name="folder"))
    assert nodes["3.denoise0_ip_adapter_0"]["clip_vision_model"] == "ViT-H"
    assert "is not installed" in why(referring(name="folder"), replace(LIBRARY, image_encoders=()))


@pytest.mark.parametrize(
    ("kind", "inputs", "what"),
    [
        ("unCLIPCheckpointLoader", {"ckpt_name": "a.safetensors"}, "unCLIP"),
    ],
)
def test_nodes_without_a_counterpart_are_refused_by_name(kind: str, inputs: dict[str, Any], what: str) -> None:
    workflow = text_to_image()
    workflow["20"] = {"class_type": kind, "inputs": inputs}
    workflow["3"]["inputs"]["model"] = ["20", 0]
    assert what in why(workflow)


PRESETS = replace(
    LIBRARY,
    ip_adapters=[
        adapter("ip-adapter-plus-face_sd15"),
        adapter("ip-adapter-plus_sd15"),
        adapter("IP Adapter (SD 1.5)"),
        adapter("ip-adapter-full-face_sd15"),
        adapter("ip-adapter_sd15_light_v11"),
        adapter("ip-adapter-faceid_sd15"),
        adapter("ip-adapter_sdxl", XL),
        adapter("ip-adapter_sdxl_vit-h", XL),
    ],
    image_encoders=models(Config(ENCODER, "clip_vision"), Config("IP Adapter SDXL Image Encoder", "clip_vision")),
)


def with_preset(preset: str, model: str = "Embedded Tiny") -> dict[str, Any]:
    workflow = with_inputs(referring("IPAdapter"), "4", ckpt_name=model)
    workflow["30"] = {"class_type": "IPAdapterUnifiedLoader", "inputs": {"model": ["4", 0], "preset": preset}}
    workflow["32"]["inputs"] |= {"model": ["30", 0], "ipadapter": ["30", 1]}
    return workflow


@pytest.mark.parametrize(
    ("preset", "model", "name"),
    [
        ("LIGHT - SD1.5 only (low strength)", "Embedded Tiny", "ip-adapter_sd15_light_v11"),
        ("STANDARD (medium strength)", "Embedded Tiny", "IP Adapter (SD 1.5)"),
        ("PLUS (high strength)", "Embedded Tiny", "ip-adapter-plus_sd15"),
        ("PLUS FACE (portraits)", "Embedded Tiny", "ip-adapter-plus-face_sd15"),
        ("FULL FACE - SD1.5 only (portraits stronger)", "Embedded Tiny", "ip-adapter-full-face_sd15"),
        ("STANDARD (medium strength)", "XL", "ip-adapter_sdxl_vit-h"),
        ("VIT-G (medium strength)", "XL", "ip-adapter_sdxl"),
    ],
)
def test_presets_are_published_ip_adapters(preset: str, model: str, name: str) -> None:
    nodes = build_nodes(with_preset(preset, model), PRESETS)
    assert nodes["3.denoise0_ip_adapter_0"]["ip_adapter_model"]["name"] == name


def test_presets_that_are_not_installed_are_refused() -> None:
    reason = why(with_preset("PLUS (high strength)", "XL"), PRESETS)
    assert "no IP-Adapter of the preset PLUS (high strength) for sdxl models is installed" in reason
    assert "(ip-adapter_sdxl, ip-adapter_sdxl_vit-h) with IPAdapterModelLoader" in reason
    assert "'PLUS' not in" in why(with_preset("PLUS"), PRESETS)


# SDXL and its refiner

SIZES = {"width": 832, "height": 1216}
TARGET = {"target_width": 800, "target_height": 1200, "crop_w": 16, "crop_h": 8}


def refining(**inputs: Any) -> dict[str, Any]:
    """Return ComfyUI's template for SDXL with its refiner, which takes over at step 20 of 25."""
    workflow = with_inputs(text_to_image(), "4", ckpt_name="XL")
    workflow["14"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "Refiner"}}
    for node, text in (("6", "a fox"), ("7", "blurry")):
        encoded = {"clip": ["4", 1], "text_g": f"(g:1.2) {text}", "text_l": text}
        workflow[node] = {"class_type": "CLIPTextEncodeSDXL", "inputs": encoded | SIZES | TARGET | inputs}
        workflow[f"1{node}"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["14", 1], "text": text}}
    common = {"steps": 25, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "noise_seed": 1}
    first = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    first |= {"add_noise": "enable", "start_at_step": 0, "end_at_step": 20, "return_with_leftover_noise": "enable"}
    last = {"model": ["14", 0], "positive": ["16", 0], "negative": ["17", 0], "latent_image": ["2", 0]}
    last |= {"add_noise": "disable", "start_at_step": 20, "end_at_step": 10000, "return_with_leftover_noise": "disable"}
    workflow["2"] = {"class_type": "KSamplerAdvanced", "inputs": common | first}
    workflow["3"] = {"class_type": "KSamplerAdvanced", "inputs": common | last | {"cfg": 6.0}}
    return workflow


def test_sdxl_refiner_template_is_translated() -> None:
    nodes = build_nodes(refining())
    first, last = nodes["2.denoise0"], nodes["3.denoise0"]
    assert (first["denoising_start"], first["denoising_end"]) == (0.0, 0.8)
    assert (last["denoising_start"], last["denoising_end"]) == (0.8, 1.0)
    assert "3.denoise0_noise" not in nodes
    positive = nodes["6.prompt"]
    assert (positive["prompt"], positive["style"]) == ("a fox", "(g)1.2 a fox")
    sizes = {name: positive[name] for name in ("original_width", "original_height", "target_width", "target_height")}
    assert sizes == {"original_width": 832, "original_height": 1216, "target_width": 800, "target_height": 1200}
    assert (positive["crop_left"], positive["crop_top"]) == (16, 8)
    assert leading_to(refining(), "3.negative.item") == "3.negative_score0.conditioning"
    assert nodes["3.negative_score0"]["aesthetic_score"] == 2.5
    assert "aesthetic_score" not in nodes["16.prompt"], "the node's default, 6"
    metadata = nodes["3.metadata0"]
    assert (metadata["model"]["name"], metadata["steps"], metadata["cfg_scale"]) == ("XL", 25, 8.0)
    assert (metadata["refiner_model"]["name"], metadata["refiner_cfg_scale"]) == ("Refiner", 6.0)
    assert metadata["refiner_start"] == 0.8
    scores = metadata["refiner_positive_aesthetic_score"], metadata["refiner_negative_aesthetic_score"]
    assert scores == (6.0, 2.5)


def test_aesthetic_scores_come_from_the_refiner_node() -> None:
    workflow = refining()
    for node, score in (("16", 8.0), ("17", 3.0)):
        inputs = {"clip": ["14", 1], "text": "a fox", "ascore": score, **SIZES}
        workflow[node] = {"class_type": "CLIPTextEncodeSDXLRefiner", "inputs": inputs}
    nodes = build_nodes(workflow)
    assert [nodes[f"{node}.prompt"]["aesthetic_score"] for node in ("16", "17")] == [8.0, 3.0]
    assert nodes["17.prompt"]["original_height"] == 1216
    assert "3.negative_score0" not in nodes
    assert nodes["3.metadata0"]["refiner_negative_aesthetic_score"] == 3.0


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"text_g": ""}, "is empty"),
        ({"clip": ["14", 1]}, "prompts must have one text and no target size"),
        ({"width": 10**9}, "bigger than max"),
    ],
)
def test_prompts_unsupported_by_the_models_are_refused(inputs: dict[str, Any], problem: str) -> None:
    assert problem in why(refining(**inputs))


def test_sdxl_prompt_nodes_are_refused_for_other_models() -> None:
    workflow = with_inputs(text_to_image(), "4", ckpt_name="Embedded Tiny")
    fields = {"clip": ["4", 1], "text_g": "a", "text_l": "a", **SIZES, **TARGET}
    workflow["6"] = {"class_type": "CLIPTextEncodeSDXL", "inputs": fields}
    assert "prompts with sizes" in why(workflow)
    workflow = with_inputs(text_to_image(), "4", ckpt_name="XL")
    workflow["6"] = {"class_type": "CLIPTextEncodeSDXLRefiner"}
    workflow["6"]["inputs"] = {"clip": ["4", 1], "text": "a", "ascore": 6.0, **SIZES}
    assert "aesthetic scores are only for the refiner" in why(workflow)


def test_lists_contain_the_models() -> None:
    def names(kind: str, field: str) -> Any:
        return TYPES[kind].describe(LIBRARY)["input"]["required"][field][0]

    assert names("IPAdapterModelLoader", "ipadapter_file") == ["ip-adapter_sd15", "ip-adapter_sdxl", "folder"]
    assert names("CLIPVisionLoader", "clip_name") == [ENCODER, "someone's encoder"]
    assert "Refiner" in names("CheckpointLoaderSimple", "ckpt_name")
