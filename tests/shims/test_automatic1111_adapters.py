"""IP-Adapter units, preprocessors and refiners in AUTOMATIC1111's requests."""

from typing import Any

import pytest
from PIL import Image

from invokeclone.graph.invocations import registry
from invokeclone.graph.recipes import Preprocessor
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry as model_registry
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.shims.automatic1111 import controlnet, generate, preprocessors
from invokeclone.shims.automatic1111.plan import make_plan
from invokeclone.shims.automatic1111.preprocessors import resize_to_resolution
from invokeclone.shims.automatic1111.schemas import ImageToImage, TextToImage
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.users.current import SYSTEM
from tests.shims.test_automatic1111_controlnet import EDGES, INITIAL, resolve, script, size_of, unit
from tests.shims.test_automatic1111_parts import COMMON

ENCODER = {"type": "clip_vision", "base": "any", "format": "diffusers", "repo_variant": ""}


@pytest.fixture
async def library(resources: Resources) -> Resources:
    """Return main models of two bases, a refiner, a ControlNet, IP-Adapters and both image encoders."""
    records: list[tuple[str, dict[str, Any]]] = [
        ("m", {"type": "main", "base": "sd-1"}),
        ("xl", {"type": "main", "base": "sdxl"}),
        ("xl refiner", {"type": "main", "base": "sdxl-refiner"}),
        ("control_v11p_sd15_canny", {"type": "controlnet", "base": "sd-1"}),
        ("other", {"type": "main", "base": "sd-1"}),
        ("flux", {"type": "main", "base": "flux", "variant": "dev", "format": "checkpoint", "config_path": ""}),
        ("style", {"type": "lora", "base": "sd-1", "format": "lycoris"}),
        ("xl style", {"type": "lora", "base": "sdxl", "format": "lycoris"}),
        ("union", {"type": "controlnet", "base": "flux"}),
        ("ip-adapter_sd15", {"type": "ip_adapter", "base": "sd-1"}),
        ("ip-adapter-plus_sdxl_vit-h", {"type": "ip_adapter", "base": "sdxl"}),
        ("ip-adapter_sdxl", {"type": "ip_adapter", "base": "sdxl"}),
        ("IP Adapter SD1.5 Image Encoder", ENCODER),
        ("ip_adapter_sdxl_image_encoder", ENCODER),
    ]
    for name, fields in records:
        record = COMMON | {"key": name, "name": name, "path": f"/some/{name}", "hash": f"blake3:{name}"} | fields
        dropped = () if fields["type"] == "main" else ("variant", "prediction_type")
        if fields["type"] == "ip_adapter":
            record |= {"format": "checkpoint"}
        record = {field: value for field, value in record.items() if field not in dropped}
        async with resources.database.write() as connection:
            await models.add(connection, model_registry.parse(record))
    return resources


def checkpoint(name: str) -> dict[str, Any]:
    return {"override_settings": {"sd_model_checkpoint": name}}


def reference(**fields: Any) -> dict[str, Any]:
    return {"module": "ip-adapter-auto", "model": "ip-adapter_sd15 [0123abcd]", "image": EDGES, **fields}


async def test_units_of_ip_adapters_become_reference_images(library: Resources) -> None:
    units = unit(weight=0.5), reference(weight=0.7, guidance_start=0.1, guidance_end=0.6, effective_region_mask=INITIAL)
    request = ImageToImage(init_images=[INITIAL], **checkpoint("m"), **script(*units, reference(image=None)))
    resolved = await resolve(library, request)
    (control,) = resolved.settings.controls
    first, second = resolved.settings.references
    assert (control.weight, first.model["name"]) == (0.5, "ip-adapter_sd15")
    assert (first.weight, first.begin, first.end, first.image_encoder) == (0.7, 0.1, 0.6, "ViT-H")
    assert await size_of(library, first.image) == (16, 8)
    assert await size_of(library, first.mask) == (24, 8)
    assert second.mask is None
    assert await size_of(library, second.image) == (24, 8), "the initial image"
    registry.discover()
    nodes = resolved.batch(origin="t").graph.nodes
    assert nodes["denoise_latents_ip_adapter_0"].weight == 0.7
    described = controlnet.description(resolved)
    assert described["ControlNet 1"] == "Model: ip-adapter_sd15, Weight: 0.7, Guidance Start: 0.1, Guidance End: 0.6"


@pytest.mark.parametrize(
    ("model", "module", "encoder"),
    [
        ("ip-adapter_sdxl", "ip-adapter-auto", "ViT-G"),
        ("ip-adapter-plus_sdxl_vit-h", "ip-adapter-auto", "ViT-H"),
        ("ip-adapter_sdxl", "ip-adapter_clip_sdxl", "ViT-G"),
        ("ip-adapter-plus_sdxl_vit-h", "ip-adapter_clip_sdxl_plus_vith", "ViT-H"),
        ("ip-adapter_sdxl", "IP-Adapter_clip_h", "ViT-H"),
    ],
)
async def test_image_encoder_follows_from_the_module_or_adapter_name(
    library: Resources, model: str, module: str, encoder: str
) -> None:
    units = script(reference(model=model, module=module))
    (reference_image,) = (
        await make_plan(library, SYSTEM, TextToImage(**checkpoint("xl"), **units))
    ).resolved.settings.references
    assert reference_image.image_encoder == encoder


async def test_reference_images_apply_to_inpainting_of_a_region(library: Resources) -> None:
    fields = {"init_images": [INITIAL], "mask": INITIAL, **checkpoint("m")}
    plan = await make_plan(library, SYSTEM, ImageToImage(**fields, **script(reference())))
    assert len(plan.resolved.settings.references) == 1


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model": "nothing"}, "there is no IP-Adapter 'nothing'"),
        ({"model": "ip-adapter_sdxl"}, "for sdxl models, m is sd-1"),
        ({"module": "ip-adapter_face_id"}, "preprocessor 'ip-adapter_face_id' is not supported: .*ip-adapter-auto"),
        ({"mask": EDGES}, "masks are not supported"),
        ({"guidance_start": 0.5, "guidance_end": 0.5}, "begin must be less than end"),
        ({"image": None}, "the image is missing"),
    ],
)
async def test_unsupported_reference_images_are_refused(
    library: Resources, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises((RequestRejected, generation.InvalidGeneration, generation.ExtraModelNotFound), match=problem):
        await resolve(library, TextToImage(**checkpoint("m"), **script(reference(**fields))))


# Preprocessors


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"module": "canny"}, Preprocessor("canny_edge_detection", {"low_threshold": 100, "high_threshold": 200})),
        (
            {"module": "Canny", "threshold_a": 20, "threshold_b": 60.4},
            Preprocessor("canny_edge_detection", {"low_threshold": 20, "high_threshold": 60}),
        ),
        (
            {"module": "invert (from white bg & black line)"},
            Preprocessor("invokeai_img_enhance", {"invert": True}),
        ),
        ({"module": "shuffle"}, Preprocessor("content_shuffle", {})),
        ({"module": "t2ia_color_grid"}, Preprocessor("color_map", {})),
        ({"module": "blur_gaussian", "threshold_a": 3}, Preprocessor("img_blur", {"radius": 3})),
        (
            {"module": "tile_resample", "threshold_a": 2},
            Preprocessor("img_scale", {"scale_factor": 0.5, "resample_mode": "box"}),
        ),
        ({"module": "none"}, None),
    ],
)
async def test_preprocessors_become_nodes(
    library: Resources, fields: dict[str, Any], expected: Preprocessor | None
) -> None:
    resolved = await resolve(library, TextToImage(**checkpoint("m"), **script(unit(**fields))))
    (control,) = resolved.settings.controls
    assert control.preprocessor == expected
    registry.discover()
    batch = resolved.batch(origin="t")
    ends = {(edge.source.node_id, edge.destination.node_id) for edge in batch.graph.edges}
    assert (("control_image_0", "denoise_latents_controlnet_0") in ends) is (expected is not None)
    (recorded,) = batch.graph.nodes["core_metadata"].controlnets
    assert recorded.image.image_name == control.image


@pytest.mark.parametrize("module", preprocessors.MODULES)
async def test_every_preprocessor_makes_a_valid_graph(library: Resources, module: str) -> None:
    resolved = await resolve(library, TextToImage(**checkpoint("m"), **script(unit(module=module))))
    registry.discover()
    assert "control_image_0" in resolved.batch(origin="t").graph.nodes


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (1024, 512)),
        ({"processor_res": 64}, (128, 64)),
        ({"processor_res": 10}, (1024, 512)),
        ({"pixel_perfect": True}, (256, 128)),
        ({"pixel_perfect": True, "resize_mode": "Resize and Fill"}, (128, 64)),
        ({"module": "invert"}, (16, 8)),
        ({"module": "none"}, (16, 8)),
    ],
)
async def test_images_are_resized_to_the_preprocessor_resolution(
    library: Resources, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    units = script(unit(**{"module": "canny"} | fields))
    resolved = await resolve(library, TextToImage(width=128, height=128, **checkpoint("m"), **units))
    assert await size_of(library, resolved.settings.controls[0].image) == size


def test_narrow_image_keeps_one_pixel_and_has_a_size_limit() -> None:
    narrow = Image.new("RGB", (3000, 1))
    assert resize_to_resolution(narrow, 64, (64, 64), contain=True).size == (64, 1)
    assert resize_to_resolution(narrow, 512).size == (8192, 3)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"module": "canny", "threshold_a": 300}, "unit 0: Low Threshold must be 0 to 255, not 300"),
        ({"module": "tile_resample", "threshold_a": 0}, "Down Sampling Rate must be 1 to 8"),
        ({"module": "blur_gaussian", "threshold_a": float("nan")}, "Sigma must be"),
        ({"module": "canny", "processor_res": 100_000}, "unit 0: processor_res"),
        (
            {"module": "depth_midas"},
            "'depth_midas' is not supported: send the preprocessed image, or use one of canny, invert",
        ),
    ],
)
async def test_unsupported_preprocessors_are_refused(library: Resources, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestRejected, match=problem):
        await make_plan(library, SYSTEM, TextToImage(**checkpoint("m"), **script(unit(**fields))))


def test_modules_are_listed() -> None:
    listed = preprocessors.describe_modules()
    assert listed["module_list"][:2] == ["none", "canny"]
    assert "ip-adapter-auto" in listed["module_list"]
    low, high = listed["module_detail"]["canny"]["sliders"]
    assert (low["value"], high["value"]) == (100, 200)


async def test_adapters_are_listed(library: Resources) -> None:
    async with library.database.read() as connection:
        assert "ip-adapter_sd15" in await controlnet.model_names(connection)


# The refiner


async def test_refiner_finishes_each_run(library: Resources) -> None:
    fields = {"refiner_checkpoint": "xl refiner [0123456789]", "steps": 12, "cfg_scale": 4.0}
    plan = await make_plan(library, SYSTEM, TextToImage(**checkpoint("xl"), **fields))
    refiner = plan.resolved.settings.refiner
    assert refiner is not None
    assert (refiner.model["name"], refiner.start) == ("xl refiner", 0.8)
    assert (refiner.steps, refiner.guidance, refiner.scheduler) == (None, None, None)
    assert "Refiner: xl refiner, Refiner switch at: 0.8" in generate._text(plan, 0)
    hires = {"enable_hr": True, "refiner_switch_at": 0.5, "width": 64, "height": 64}
    request = TextToImage(**checkpoint("xl"), **fields, **hires)
    registry.discover()
    nodes = (await make_plan(library, SYSTEM, request)).resolved.batch(origin="t").graph.nodes
    assert {nodes[name].denoising_start for name in ("refiner_denoise_latents", "refiner_second_denoise")} == {0.5}
    assert nodes["refiner_denoise_latents"].steps == 12
    assert nodes["refiner_denoise_latents"].cfg_scale == 4.0
    for nothing in (None, "", "None"):
        plan = await make_plan(library, SYSTEM, TextToImage(**checkpoint("xl"), refiner_checkpoint=nothing))
        assert plan.resolved.settings.refiner is None


async def test_unsupported_refiners_are_refused(library: Resources) -> None:
    for main, refiner, problem in (
        ("m", "xl refiner", "sd-1 models do not support refiners"),
        ("xl", "m", "m is sd-1: xl requires a refiner of sdxl-refiner"),
        ("xl", "nothing", "there is no refiner 'nothing'"),
    ):
        with pytest.raises((generation.InvalidGeneration, generation.ExtraModelNotFound), match=problem):
            await make_plan(library, SYSTEM, TextToImage(**checkpoint(main), refiner_checkpoint=refiner))


async def test_a_refiner_is_a_checkpoint_but_not_the_default(library: Resources) -> None:
    async with library.database.read() as connection:
        assert [config.name for config in await generation.generation_models(connection)] == [
            "flux",
            "m",
            "other",
            "xl",
        ]
        listed = await generation.generation_models(connection, refiners=True)
    assert [config.name for config in listed] == ["flux", "m", "other", "xl", "xl refiner"]
    plan = await make_plan(library, SYSTEM, TextToImage(**checkpoint("xl refiner")))
    registry.discover()
    nodes = plan.resolved.batch(origin="t").graph.nodes
    assert [nodes[f"{side}_cond"].aesthetic_score for side in ("pos", "neg")] == [6.0, 2.5]


# The second pass of the hires fix

SECOND = {"enable_hr": True, "prompt": "a fox <lora:style:0.5>", "negative_prompt": "blurry", "steps": 4}
SECOND |= {"width": 64, "height": 64, "hr_upscaler": "None"}


async def nodes_of(library: Resources, **fields: Any) -> dict[str, Any]:
    registry.discover()
    plan = await make_plan(library, SYSTEM, TextToImage(**checkpoint("m"), **fields))
    graph = plan.resolved.batch(origin="t").graph.model_dump(mode="json")
    sources = {
        (edge["destination"]["node_id"], edge["destination"]["field"]): edge["source"] for edge in graph["edges"]
    }
    return {"text": generate._text(plan, 0), "warnings": plan.warnings, "sources": sources, **graph["nodes"]}


async def test_second_pass_with_another_checkpoint_and_prompts(library: Resources) -> None:
    fields = {"hr_checkpoint_name": "other [0123456789]", "hr_prompt": "a red fox", "hr_negative_prompt": "dark"}
    nodes = await nodes_of(library, **SECOND, **fields)
    assert nodes["second_sd1_model_loader"]["model"]["name"] == "other"
    assert (nodes["second_positive_prompt"]["value"], nodes["second_neg_cond"]["prompt"]) == ("a red fox", "dark")
    assert nodes["neg_cond"]["prompt"] == "blurry"
    assert "second_loras" not in nodes, "the second prompt has none"
    assert nodes["loras"]["loras"][0]["weight"] == 0.5
    sources = nodes["sources"]
    assert sources["second_denoise", "latents"]["node_id"] == "enlarged"
    assert sources["second_denoise", "unet"]["node_id"] == "second_sd1_model_loader"
    assert sources["second_denoise_noise", "seed"]["node_id"] == "seed", "both passes have the seed of the image"
    assert sources["canvas_output", "vae"]["node_id"] == "second_sd1_model_loader"
    assert sources["first_image", "vae"]["node_id"] == "sd1_model_loader"
    assert "Hires checkpoint: other, Hires prompt: a red fox, Hires negative prompt: dark" in nodes["text"]


async def test_second_pass_with_a_prompt_only(library: Resources) -> None:
    nodes = await nodes_of(library, **SECOND, hr_negative_prompt="dark")
    assert nodes["second_sd1_model_loader"]["model"]["name"] == "m"
    assert nodes["second_positive_prompt"]["value"] == nodes["positive_prompt"]["value"] == "a fox "
    assert nodes["second_loras"]["loras"] == nodes["loras"]["loras"]
    assert "Hires checkpoint" not in nodes["text"]
    for same in ({}, {"hr_checkpoint_name": "Use same checkpoint", "hr_prompt": SECOND["prompt"]}):
        assert "second_positive_prompt" not in await nodes_of(library, **SECOND, **same)


async def test_second_pass_of_another_base(library: Resources) -> None:
    """LoRAs of the first pass do not fit; those of its own prompt do. Its latents are those of a decoded image."""
    nodes = await nodes_of(library, **SECOND, hr_checkpoint_name="xl", hr_prompt="a fox <lora:xl style>", cfg_scale=3.0)
    assert nodes["second_loras"]["loras"][0]["lora"]["name"] == "xl style"
    assert nodes["sources"]["enlarged", "vae"]["node_id"] == "second_sdxl_model_loader"
    assert nodes["second_denoise"]["cfg_scale"] == 3.0
    nodes = await nodes_of(library, **SECOND, hr_checkpoint_name="flux", cfg_scale=3.0, hr_scale=1.6)
    assert nodes["second_denoise"]["guidance"] == 3.5, "the default: this model's guidance is another"
    assert (nodes["enlarge"]["width"], nodes["enlarge"]["height"]) == (96, 96), "on the grid of both"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"hr_checkpoint_name": "nothing"}, "no main model 'nothing'"),
        ({"hr_checkpoint_name": "xl", "hr_upscaler": "Latent"}, "cannot read the latents of m"),
        ({"hr_checkpoint_name": "xl", "hr_prompt": "<lora:style>"}, "style is for sd-1 models, xl is sdxl"),
        ({"hr_checkpoint_name": "xl", **script(unit())}, "cannot use the control models"),
    ],
)
async def test_unsupported_second_passes_are_refused(library: Resources, fields: dict[str, Any], problem: str) -> None:
    errors = generation.InvalidGeneration, generation.ModelNotFound, generation.ExtraModelNotFound
    with pytest.raises(errors, match=problem):
        await nodes_of(library, **SECOND | fields)


async def test_loras_of_negative_prompts_are_left_out_with_a_warning(library: Resources) -> None:
    """A1111 leaves them out silently."""
    nodes = await nodes_of(library, prompt="a fox", negative_prompt="bad <lora:style:0.5>")
    assert nodes["neg_cond"]["prompt"] == "bad "
    assert "loras" not in nodes
    ((text, param),) = nodes["warnings"]
    assert (text, param) == (
        "the LoRA style in negative_prompt has no effect: LoRAs of the prompt apply to both prompts",
        "negative_prompt",
    )


# Union ControlNets


async def test_types_of_union_controlnets(library: Resources) -> None:
    fields = unit(model="union", union_control_type="Depth", module="none")
    resolved = await resolve(library, TextToImage(**checkpoint("flux"), **script(fields)))
    assert resolved.settings.controls[0].kind == "depth"


@pytest.mark.parametrize(
    ("model", "fields", "problem"),
    [
        ("flux", {"model": "union", "union_control_type": "Normal Map"}, "take no normal images"),
        ("flux", {"model": "union", "union_control_type": "Smell"}, "unknown union_control_type 'Smell'"),
        ("flux", {"model": "union", "control_mode": 2}, "have no mode"),
        ("m", {"union_control_type": "Depth"}, "have no kinds"),
    ],
)
async def test_unsupported_types_are_refused(
    library: Resources, model: str, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises((RequestRejected, generation.InvalidGeneration), match=problem):
        await make_plan(library, SYSTEM, TextToImage(**checkpoint(model), **script(unit(**fields))))
