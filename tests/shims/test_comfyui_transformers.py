"""ComfyUI's nodes for models of transformers: style models, union ControlNets, control LoRAs, ranges of steps."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.shims.comfyui.catalog import Catalog, LoadableImage
from invokeclone.shims.comfyui.translate import translate
from tests.shims.test_comfyui_adapters import build_nodes, why
from tests.shims.test_comfyui_nodes import Config, models

FLUX, SD1, SD3 = BaseModelType.Flux, BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion3
FLUX2, Z_IMAGE, ANY = BaseModelType.Flux2, BaseModelType.ZImage, BaseModelType.Any


def config(name: str, kind: str = "main", base: BaseModelType = FLUX, **fields: Any) -> Any:
    return SimpleNamespace(**vars(Config(name, kind, base=base)) | fields)


LIBRARY = Catalog(
    mains=[
        config("dev", variant="dev"),
        config("fill", variant="dev_fill"),
        config("sd1", base=SD1),
        config("sd3", base=SD3),
        config("klein.gguf", base=FLUX2, variant="klein_4b"),
        config("z-image.gguf", base=Z_IMAGE, variant="turbo"),
    ],
    text_encoders=[
        config("qwen3 4b", "qwen3_encoder", ANY, variant="qwen3_4b"),
        config("qwen3 8b", "qwen3_encoder", ANY, variant="qwen3_8b"),
        config("t5", "t5_encoder", ANY),
    ],
    vaes=[config("ae", "vae"), config("flux2 vae", "vae", FLUX2), config("sd vae", "vae", SD1)],
    loras=[config("style", "lora"), config("canny lora", "control_lora"), config("depth lora", "control_lora")],
    controls=[
        config("union", "controlnet"),
        config("edges", "controlnet", SD1),
        config("fun union", "controlnet", Z_IMAGE),
    ],
    style_models=[config("redux", "flux_redux")],
    ip_adapters=[config("xlabs", "ip_adapter", format="checkpoint")],
    image_encoders=[
        *models(Config("clip-vit-large-patch14", "clip_vision")),
        *models(Config("vit", "clip_vision")),
        config("eye", "siglip", BaseModelType.Any),
    ],
    loadable_images={"a.png": LoadableImage(100, 60, "a.png"), "b.png": LoadableImage(64, 64, "b.png")},
)
Nodes = dict[str, tuple[str, dict[str, Any]]]


def prompt_of(nodes: Nodes) -> dict[str, Any]:
    return {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}


def text_to_image(model: str = "dev", **changes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the simple template: the sampler is `sampler`, the prompts are `positive` and `negative`."""
    sampler = {"seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"model": ["m", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["empty", 0]}
    nodes: Nodes = {
        "m": ("CheckpointLoaderSimple", {"ckpt_name": model}),
        "positive": ("CLIPTextEncode", {"text": "a fox", "clip": ["m", 1]}),
        "negative": ("CLIPTextEncode", {"text": "blurry", "clip": ["m", 1]}),
        "empty": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampler": ("KSampler", sampler | links),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["m", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "x"}),
        "image": ("LoadImage", {"image": "a.png"}),
        **changes,
    }
    return prompt_of(nodes)


def with_positive(workflow: dict[str, Any], node: str, slot: int = 0) -> dict[str, Any]:
    workflow["sampler"]["inputs"]["positive"] = [node, slot]
    return workflow


def warnings_of(workflow: dict[str, Any]) -> list[str]:
    from invokeclone.graph.invocations import registry
    from invokeclone.shims.comfyui.record import PromptRecord

    registry.discover()
    record = PromptRecord(workflow, ["save"])
    return translate(record, LIBRARY, "3fa85f64-5717-4562-b3fc-2c963f66afa6").warnings


# Style models


def styled(model: str = "dev", encoder: str = "eye", crop: str = "none", **inputs: Any) -> dict[str, Any]:
    applied = {"conditioning": ["positive", 0], "style_model": ["redux", 0], "clip_vision_output": ["seen", 0]}
    settings = {"strength": 0.25, "strength_type": "multiply"}
    workflow = text_to_image(
        model,
        redux=("StyleModelLoader", {"style_model_name": "redux"}),
        eye=("CLIPVisionLoader", {"clip_name": encoder}),
        seen=("CLIPVisionEncode", {"clip_vision": ["eye", 0], "image": ["image", 0], "crop": crop}),
        styled=("StyleModelApply", applied | settings | inputs),
    )
    return with_positive(workflow, "styled")


def test_images_of_style_models_reach_the_sampler() -> None:
    nodes = build_nodes(styled(), LIBRARY)
    redux = nodes["sampler.denoise0_redux_0"]
    assert (redux["redux_model"]["name"], redux["weight"]) == ("redux", 0.5), "the node squares the weight"
    assert "seen.crop0" not in nodes
    assert nodes["sampler.denoise0_redux_collect"]["type"] == "collect"
    cropped = build_nodes(styled(crop="center"), LIBRARY)["seen.crop0"]
    assert (cropped["x"], cropped["width"], cropped["height"]) == (20, 60, 60)


def test_several_images_and_regions_of_style_models() -> None:
    """A prompt's mask restricts its images too, whichever node comes first; an image of two prompts counts once."""
    workflow = styled()
    workflow["again"] = {"class_type": "StyleModelApply", "inputs": workflow["styled"]["inputs"] | {"strength": 1.0}}
    workflow["again"]["inputs"]["conditioning"] = ["styled", 0]
    workflow["twice"] = {"class_type": "ConditioningConcat"}
    workflow["twice"]["inputs"] = {"conditioning_to": ["again", 0], "conditioning_from": ["styled", 0]}
    nodes = build_nodes(with_positive(workflow, "twice"), LIBRARY)
    assert [nodes[f"sampler.denoise0_redux_{number}"]["weight"] for number in range(2)] == [0.5, 1.0]
    assert "sampler.denoise0_redux_2" not in nodes
    workflow["mask"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}}
    masked = {"conditioning": ["styled", 0], "mask": ["mask", 0], "strength": 1.0, "set_cond_area": "default"}
    workflow["masked"] = {"class_type": "ConditioningSetMask", "inputs": masked}
    graph = translate_graph(with_positive(workflow, "masked"))
    assert [edge for edge in graph["edges"] if edge["destination"]["field"] == "mask"] != []
    assert any(
        edge["destination"]["node_id"].endswith("redux_0") and edge["destination"]["field"] == "mask"
        for edge in graph["edges"]
    )


def translate_graph(workflow: dict[str, Any]) -> dict[str, Any]:
    from invokeclone.shims.comfyui.translate import build_graph
    from invokeclone.shims.comfyui.workflow import check

    return build_graph(workflow, check(workflow, LIBRARY), LIBRARY).graph()


@pytest.mark.parametrize("off", [{"strength": 0.0, "strength_type": "attn_bias"}])
def test_style_models_without_effect_add_no_nodes(off: dict[str, Any]) -> None:
    assert not any("redux" in node for node in build_nodes(styled(**off), LIBRARY))


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"strength": 1.5}, "a style model's strength is at most 1, not 1.5"),
        ({"strength_type": "attn_bias"}, "select multiply"),
        ({"encoder": "vit"}, "needs an image encoder of the type siglip, vit is clip_vision"),
        ({"model": "sd1"}, "sd1: sd-1 models do not support style models"),
    ],
)
def test_unsupported_style_models_are_refused(inputs: dict[str, Any], problem: str) -> None:
    assert problem in why(styled(**inputs), LIBRARY)


def test_style_models_on_effective_negative_prompts_are_refused() -> None:
    workflow = styled()
    workflow["sampler"]["inputs"] |= {"positive": ["positive", 0], "negative": ["styled", 0], "cfg": 2.0}
    assert "positive prompts only" in why(workflow, LIBRARY)


def test_a_style_model_that_is_not_installed_is_named() -> None:
    workflow = styled()
    workflow["redux"]["inputs"]["style_model_name"] = "other.safetensors"
    assert "style_model_name: 'other.safetensors' not in ['redux']" in why(workflow, LIBRARY)


# Union ControlNets and control LoRAs


def controlled(kind: str = "depth", model: str = "dev", net: str = "union") -> dict[str, Any]:
    sides = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["m", 2], "image": ["image", 0]}
    settings = {"control_net": ["union", 0], "strength": 0.7, "start_percent": 0.0, "end_percent": 0.5}
    workflow = text_to_image(
        model,
        net=("ControlNetLoader", {"control_net_name": net}),
        union=("SetUnionControlNetType", {"control_net": ["net", 0], "type": kind}),
        apply=("ControlNetApplySD3", sides | settings),
    )
    workflow["sampler"]["inputs"]["negative"] = ["apply", 1]
    return with_positive(workflow, "apply")


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("canny/lineart/anime_lineart/mlsd", 0), ("tile", 1), ("depth", 2), ("openpose", 4), ("auto", None)],
)
def test_kinds_of_union_controlnets_are_modes(kind: str, mode: int | None) -> None:
    net = build_nodes(controlled(kind), LIBRARY)["sampler.denoise0_controlnet_0"]
    assert net.get("instantx_control_mode") == mode
    assert (net["type"], net["control_weight"], net["end_step_percent"]) == ("flux_controlnet", 0.7, 0.5)


@pytest.mark.parametrize(
    ("workflow", "problem"),
    [
        (controlled("normal"), "take no normal images, only canny, tile, depth"),
        (controlled("depth", "sd1", "edges"), "ControlNets of sd-1 have no kinds of images"),
        (controlled(model="fill"), "of its kind do not support ControlNets"),
        (controlled(model="sd3"), "do not support ControlNets"),
    ],
)
def test_unsupported_controls_are_refused(workflow: dict[str, Any], problem: str) -> None:
    assert problem in why(workflow, LIBRARY)


def with_control_lora(name: str = "canny lora") -> dict[str, Any]:
    """Return the template of FLUX.1's control LoRAs."""
    sides = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["m", 2], "pixels": ["edges", 0]}
    workflow = text_to_image(
        lora=("LoraLoaderModelOnly", {"model": ["m", 0], "lora_name": name, "strength_model": 0.8}),
        edges=("Canny", {"image": ["image", 0], "low_threshold": 0.2, "high_threshold": 0.4}),
        pixels=("InstructPixToPixConditioning", sides),
    )
    links = {"model": ["lora", 0], "negative": ["pixels", 1], "latent_image": ["pixels", 2]}
    workflow["sampler"]["inputs"] |= links
    return with_positive(workflow, "pixels")


def test_control_loras_take_the_image_of_the_prompts() -> None:
    nodes = build_nodes(with_control_lora(), LIBRARY)
    lora = nodes["sampler.denoise0_control_lora"]
    assert (lora["type"], lora["lora"]["name"], lora["weight"]) == ("flux_control_lora_loader", "canny lora", 0.8)
    assert (nodes["edges.edges0"]["low_threshold"], nodes["edges.edges0"]["high_threshold"]) == (51, 102)
    assert (nodes["sampler.denoise0"]["width"], nodes["sampler.denoise0"]["height"]) == (96, 64), "on FLUX.1's grid"


@pytest.mark.parametrize("missing", ["image", "lora"])
def test_control_loras_and_their_images_need_each_other(missing: str) -> None:
    workflow = with_control_lora("canny lora" if missing == "image" else "style")
    if missing == "image":
        workflow["sampler"]["inputs"] |= {"positive": ["positive", 0], "latent_image": ["empty", 0]}
    assert "needs a control LoRA (LoraLoaderModelOnly)" in why(workflow, LIBRARY)


def test_only_one_control_lora_at_a_time() -> None:
    workflow = with_control_lora()
    second = {"model": ["lora", 0], "clip": ["m", 1], "lora_name": "depth lora", "strength_model": 1.0}
    workflow["second"] = {"class_type": "LoraLoader", "inputs": second | {"strength_clip": 1.0}}
    workflow["sampler"]["inputs"]["model"] = ["second", 0]
    assert "only one control LoRA" in why(workflow, LIBRARY)


# What other templates have


def test_prompts_for_a_range_of_steps_apply_to_all_of_them() -> None:
    """As in the template of Stable Diffusion 3: the negative prompt is zeroed after a tenth of the steps."""
    workflow = text_to_image(
        "sd3",
        zero=("ConditioningZeroOut", {"conditioning": ["negative", 0]}),
        late=("ConditioningSetTimestepRange", {"conditioning": ["zero", 0], "start": 0.1, "end": 1.0}),
        early=("ConditioningSetTimestepRange", {"conditioning": ["negative", 0], "start": 0.0, "end": 0.1}),
        both=("ConditioningCombine", {"conditioning_1": ["late", 0], "conditioning_2": ["early", 0]}),
    )
    workflow["sampler"]["inputs"] |= {"negative": ["both", 0], "cfg": 4.0}
    nodes = build_nodes(workflow, LIBRARY)
    assert nodes["zero.empty0"]["prompt"] == ""
    assert "negative.prompt" not in nodes
    texts = warnings_of(workflow)
    assert any("the one from 0.1 to 1 does" in text for text in texts), texts
    workflow["late"]["inputs"]["conditioning"], workflow["zero"]["inputs"]["conditioning"] = (
        ["negative", 0],
        ["late", 0],
    )
    workflow["both"]["inputs"]["conditioning_1"] = ["zero", 0]
    assert warnings_of(workflow) == texts, "whichever node comes first"
    workflow["late"]["inputs"]["start"] = 1.0
    assert "start must be less than end" in why(workflow, LIBRARY)


def test_differential_diffusion_is_passed_on() -> None:
    changed = {"m2": ("DifferentialDiffusion", {"model": ["m", 0]})}
    for model, count in (("fill", 0), ("dev", 1)):
        inpaint = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["m", 2], "pixels": ["image", 0]}
        workflow = text_to_image(
            model, **changed, fill=("InpaintModelConditioning", inpaint | {"mask": ["image", 1], "noise_mask": True})
        )
        workflow["sampler"]["inputs"] |= {"model": ["m2", 0], "latent_image": ["fill", 2]}
        texts = warnings_of(with_positive(workflow, "fill"))
        assert len([text for text in texts if "DifferentialDiffusion" in text]) == count, texts


def test_the_size_of_an_image_is_a_number() -> None:
    workflow = text_to_image(size=("GetImageSize", {"image": ["image", 0]}))
    workflow["empty"]["inputs"] |= {"width": ["size", 0], "height": ["size", 1], "batch_size": ["size", 2]}
    denoise = build_nodes(workflow, LIBRARY)["sampler.denoise0"]
    assert (denoise["width"], denoise["height"]) == (96, 64)


def test_ip_adapters_of_flux() -> None:
    """XLabs': without methods and masks."""
    fields = {"model": ["m", 0], "ipadapter": ["ip", 0], "image": ["image", 0], "weight": 0.6, "start_at": 0.0}
    fields |= {"end_at": 0.5, "weight_type": "standard"}
    workflow = text_to_image(
        ip=("IPAdapterModelLoader", {"ipadapter_file": "xlabs"}), applied=("IPAdapter", dict(fields))
    )
    workflow["sampler"]["inputs"]["model"] = ["applied", 0]
    adapter = build_nodes(workflow, LIBRARY)["sampler.denoise0_ip_adapter_0"]
    assert (adapter["type"], adapter["clip_vision_model"], adapter["weight"]) == ("flux_ip_adapter", "ViT-L", 0.6)
    assert "method" not in adapter
    workflow["applied"]["inputs"]["weight_type"] = "style transfer"
    assert "IP-Adapters have no method and no mask" in why(workflow, LIBRARY)
    workflow["m"]["inputs"]["ckpt_name"] = "fill"
    assert "of its kind do not support reference images" in why(workflow, LIBRARY)


# Models whose parts are loaded apart


def apart(main: str, text_encoder: str, vae: str, **changes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    loaders: Nodes = {
        "m": ("UnetLoaderGGUF", {"unet_name": main}),
        "clip": ("CLIPLoaderGGUF", {"clip_name": text_encoder, "type": "flux2"}),
        "vae": ("VAELoader", {"vae_name": vae}),
        "empty": ("EmptyFlux2LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
    }
    workflow = text_to_image(**loaders, **changes)
    for node in ("positive", "negative"):
        workflow[node]["inputs"]["clip"] = ["clip", 0]
    workflow["decode"]["inputs"]["vae"] = ["vae", 0]
    return workflow


@pytest.mark.parametrize(
    ("main", "vae", "loader"),
    [
        ("klein.gguf", "flux2 vae", "flux2_klein_model_loader"),
        ("z-image.gguf", "ae", "z_image_model_loader"),
    ],
)
def test_every_loader_of_a_main_model_has_the_parts_of_the_workflow(main: str, vae: str, loader: str) -> None:
    """The transformer's file has no parts: without these, its loader would search for others, or fail."""
    nodes = build_nodes(apart(main, "qwen3 4b", vae), LIBRARY)
    loaders = [fields for fields in nodes.values() if fields["type"] == loader]
    parts = [(fields["qwen3_encoder_model"]["name"], fields["vae_model"]["name"]) for fields in loaders]
    assert parts == [("qwen3 4b", vae)] * 2


@pytest.mark.parametrize(
    ("workflow", "problem"),
    [
        (apart("z-image.gguf", "qwen3 8b", "ae"), "cannot use qwen3 8b (qwen3_encoder qwen3_8b); it takes qwen3_encoder qwen3_4b"),
        (apart("klein.gguf", "t5", "flux2 vae"), "cannot use t5 (t5_encoder); it takes qwen3_encoder"),
        (apart("sd1", "t5", "sd vae"), "it takes only its own text encoders"),
        (apart("z-image.gguf", "qwen3 4b", "flux2 vae"), "which flux2 vae (flux2) cannot read"),
        (apart("klein.gguf", "qwen3 4b", "ae"), "which ae (flux) cannot read"),
        (apart("klein.gguf", "qwen3 4b", "no.safetensors"), "'no.safetensors' not in"),
        (apart("klein.gguf", "nope.gguf", "flux2 vae"), "'nope.gguf' not in"),
    ],
)  # fmt: skip
def test_parts_of_other_models_are_refused(workflow: dict[str, Any], problem: str) -> None:
    assert problem in why(workflow, LIBRARY)


def test_latents_of_another_kind_are_refused_by_samplers() -> None:
    encode = ("VAEEncode", {"pixels": ["image", 0], "vae": ["ae", 0]})
    workflow = apart("klein.gguf", "qwen3 4b", "flux2 vae", ae=("VAELoader", {"vae_name": "ae"}), encode=encode)
    workflow["sampler"]["inputs"]["latent_image"] = ["encode", 0]
    assert "the latents are those of ae (flux), which klein.gguf (flux2) cannot read" in why(workflow, LIBRARY)


def test_shifts_and_missing_samplers() -> None:
    """Z-Image's schedule is shifted by the node; FLUX.2's keeps its own."""
    change = {"shifted": ("ModelSamplingAuraFlow", {"model": ["m", 0], "shift": 5.0})}
    for main, vae, shift, warnings in (
        ("z-image.gguf", "ae", 5.0, ["has no dpmpp_2m (res_multistep, simple): euler is used"]),
        ("klein.gguf", "flux2 vae", None, ["shift 5 was not used", "has no dpmpp_2m"]),
    ):
        workflow = apart(main, "qwen3 4b", vae, **change)  # type: ignore[arg-type]
        workflow["sampler"]["inputs"] |= {"model": ["shifted", 0], "sampler_name": "res_multistep"}
        assert build_nodes(workflow, LIBRARY)["sampler.denoise0"].get("shift") == shift
        received = warnings_of(workflow)
        assert len(received) == len(warnings), received
        assert all(text in message for text, message in zip(warnings, received, strict=True)), received


@pytest.mark.parametrize("kind", ["QwenImageDiffsynthControlnet", "ZImageFunControlnet"])
def test_model_patches_are_controlnets(kind: str) -> None:
    patch = {"model": ["m", 0], "model_patch": ["patch", 0], "vae": ["vae", 0], "image": ["image", 0], "strength": 0.6}
    workflow = apart(
        "z-image.gguf", "qwen3 4b", "ae", patch=("ModelPatchLoader", {"name": "fun union"}), controlled=(kind, patch)
    )
    workflow["sampler"]["inputs"]["model"] = ["controlled", 0]
    control = build_nodes(workflow, LIBRARY)["sampler.denoise0_controlnet"]
    assert (control["type"], control["control_context_scale"]) == ("z_image_control", 0.6)
    workflow["patch"]["inputs"]["name"] = "edges"
    assert "edges is for sd-1 models" in why(workflow, LIBRARY)
    workflow["controlled"]["inputs"]["strength"] = -0.5
    assert "at least 0 and at most 2, not -0.5" in why(workflow, LIBRARY)
    workflow["controlled"]["inputs"]["mask"] = ["image", 1]
    assert "disconnect mask" in why(workflow, LIBRARY)
