"""The parts of AUTOMATIC1111's dialect that need no server: samplers, texts with pictures, masks, enlarging, options, refusals."""

import io
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageDraw

from invokeclone.families.stable_diffusion import prompt_language
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.images.encoding import png as png_files
from invokeclone.images.errors import TooManyPixels
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.resources import Resources
from invokeclone.models.identify import registry as model_registry
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.shims.automatic1111 import extras, infotext, inpainting, options, samplers
from invokeclone.shims.automatic1111.options import Options
from invokeclone.shims.automatic1111.plan import make_plan
from invokeclone.shims.automatic1111.schemas import ImageToImage, TextToImage, Upscale
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.users.current import SYSTEM
from tests.shims.conftest import circle_image, png

# Samplers


@pytest.mark.parametrize(
    ("name", "schedule", "scheduler", "label"),
    [
        ("Euler a", None, "euler_a", "Uniform"),
        ("euler A", "Automatic", "euler_a", "Uniform"),
        ("k_euler_ancestral", None, "euler_a", "Uniform"),
        ("Euler", "karras", "euler_k", "Karras"),
        ("DPM++ 2M", None, "dpmpp_2m_k", "Karras"),
        ("DPM++ 2M", "uniform", "dpmpp_2m", "Uniform"),
        ("DPM++ 2M Karras", None, "dpmpp_2m_k", "Karras"),
        ("DPM++ 2M Karras", "Uniform", "dpmpp_2m", "Uniform"),
        ("DPM++ SDE", "Karras", "dpmpp_sde_k", "Karras"),
        ("DPM++ 2M SDE", "automatic", "dpmpp_2m_sde_k", "Karras"),
        ("DPM2 a", "uniform", "kdpm_2_a", "Uniform"),
        ("k_dpm_2_a_ka", None, "kdpm_2_a_k", "Karras"),
        ("LMS", None, "lms", "Uniform"),
        ("Heun", "Karras", "heun_k", "Karras"),
        ("DDIM", None, "ddim", "Uniform"),
        ("PLMS", None, "pndm", "Uniform"),
        ("UniPC", None, "unipc", "Uniform"),
        ("LCM", None, "lcm", "Uniform"),
        ("dpmpp_3m_k", None, "dpmpp_3m_k", "Karras"),
    ],
)
def test_samplers_are_found_by_automatic1111_names(name: str, schedule: str | None, scheduler: str, label: str) -> None:
    sampling = samplers.resolve_sampling(name, schedule)
    assert (sampling.scheduler, sampling.schedule, sampling.unavailable_schedule) == (scheduler, label, None)


@pytest.mark.parametrize(
    ("name", "schedule", "scheduler", "label", "asked"),
    [
        ("Euler a", "Karras", "euler_a", "Uniform", "Karras"),
        ("DDIM", "karras", "ddim", "Uniform", "Karras"),
        ("DPM++ 2M", "Exponential", "dpmpp_2m_k", "Karras", "exponential"),
        ("DPM++ 2M SDE Exponential", None, "dpmpp_2m_sde_k", "Karras", "exponential"),
        ("Euler", "SGM Uniform", "euler", "Uniform", "sgm_uniform"),
        ("LCM", "Align Your Steps", "lcm", "Uniform", "align_your_steps"),
    ],
)
def test_unavailable_schedule_is_replaced_and_reported(
    name: str, schedule: str | None, scheduler: str, label: str, asked: str
) -> None:
    sampling = samplers.resolve_sampling(name, schedule)
    assert (sampling.scheduler, sampling.schedule, sampling.unavailable_schedule) == (scheduler, label, asked)


def test_without_a_name_the_model_s_sampler_is_used() -> None:
    assert samplers.resolve_sampling(None, None, "dpmpp_2m").scheduler == "dpmpp_2m"
    assert samplers.resolve_sampling(None, None, "dpmpp_2m_k").scheduler == "dpmpp_2m_k"
    assert samplers.resolve_sampling("", "karras", "euler").scheduler == "euler_k"
    assert samplers.resolve_sampling(None, "uniform", "euler_k").scheduler == "euler"


def test_unknown_names_are_not_found() -> None:
    with pytest.raises(
        samplers.SamplerNotFound, match=r"Sampler not found: 'k_nobody'\. There are: .*Euler a.*Restart"
    ):
        samplers.resolve_sampling("k_nobody", None)
    with pytest.raises(samplers.ScheduleNotFound, match=r"Scheduler not found: 'nonsense'\. There are: .*karras.*beta"):
        samplers.resolve_sampling("Euler", "nonsense")


WEBUI_SAMPLERS = (
    "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler", "LMS",
    "Heun", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM",
)  # fmt: skip
"""The samplers of AUTOMATIC1111 1.10."""
REPLACED = {
    "DPM++ 2M SDE Heun": "DPM++ 2M SDE",
    "DPM++ 2S a": "DPM++ 2S",
    "DPM++ 3M SDE": "DPM++ 2M SDE",
    "DPM fast": "DPM++ 2S",
    "DPM adaptive": "DPM++ 2S",
    "Restart": "Heun",
    "DDIM CFG++": "DDIM",
}


@pytest.mark.parametrize("name", WEBUI_SAMPLERS)
@pytest.mark.parametrize("ending", ["", " Karras", " Exponential"])
def test_every_sampler_of_automatic1111_is_accepted(name: str, ending: str) -> None:
    sampling = samplers.resolve_sampling(name + ending, None)
    assert sampling.sampler == REPLACED.get(name, name)
    assert sampling.unavailable_sampler == (name if name in REPLACED else None)
    listed = {alias for sampler in samplers.describe_samplers() for alias in (sampler["name"], *sampler["aliases"])}
    assert name in listed


def test_every_scheduler_can_be_selected() -> None:
    """Each name here is the sampler's it is listed under, and the lists name all of them."""
    for scheduler in get_args(SCHEDULER_NAME_VALUES):
        assert samplers.resolve_sampling(scheduler, None).scheduler == scheduler
    for sampler in samplers.describe_samplers():
        for name in (sampler["name"], *sampler["aliases"]):
            assert samplers.resolve_sampling(name, None).sampler == sampler["name"]
    for schedule in samplers.describe_schedules():
        assert samplers.resolve_sampling("DPM++ 2M", schedule["name"]) == samplers.resolve_sampling(
            "DPM++ 2M", schedule["label"]
        )


# Texts


def test_infotext_round_trip() -> None:
    text = infotext.format_infotext(
        "a cat,\non a mat",
        "dog: bad",
        {"Steps": 20, "CFG scale": 7.0, "Model": 'x, "y"', "Size": "64x128", "VAE": None},
    )
    assert text == (
        'a cat,\non a mat\nNegative prompt: dog: bad\nSteps: 20, CFG scale: 7, Model: "x, \\"y\\"", Size: 64x128'
    )
    assert infotext.parse(text) == {
        "Prompt": "a cat,\non a mat",
        "Negative prompt": "dog: bad",
        "Steps": "20",
        "CFG scale": "7",
        "Model": 'x, "y"',
        "Size-1": "64",
        "Size-2": "128",
    }


def test_infotext_without_parameters_is_a_prompt() -> None:
    assert infotext.parse("a cat: big, red") == {"Prompt": "a cat: big, red", "Negative prompt": ""}
    assert infotext.parse("x" * 100_000)["Prompt"] == "x" * 100_000
    assert infotext.parse("x" * 9_999 + " " * 9_999)["Prompt"] == "x" * 9_999
    assert set(infotext.parse("x" * 200 + ": 1, b: 2, c: 3")) == {"Prompt", "Negative prompt", "x" * 100, "b", "c"}


@pytest.mark.parametrize("text", ["a cat\nSteps: 1", "猫 ★ é\nSteps: 1"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_infotext_is_embedded_in_every_format(text: str, kind: Any) -> None:
    before = {"invokeai_metadata": '{"seed": 1}'}
    data = infotext.embed_infotext(png_files.encode(circle_image(64), 1, before), kind, text)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind.upper()
        assert image.size == (64, 64)
        if kind == "png":
            assert image.convert("RGB").tobytes() == circle_image(64).tobytes()
    assert infotext.read_infotext(data) == (text, before if kind == "png" else {})


def test_image_without_infotext_is_read_as_empty() -> None:
    assert infotext.read_infotext(png(circle_image(64))) == ("", {})


# Masks


def mask_of(box: tuple[int, int, int, int], size: tuple[int, int] = (128, 128)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def image_request(**fields: Any) -> ImageToImage:
    return ImageToImage.model_validate({"mask": "-", "init_images": ["-"], **fields})


def test_white_mask_areas_are_repainted() -> None:
    whole = {"inpaint_full_res": False, "inpainting_fill": 1, "mask_blur": 3}
    ready = inpainting.arrange(circle_image(), mask_of((32, 32, 96, 96)), image_request(**whole), (128, 128))
    assert (ready.feather, ready.full_image) == (3, None)
    assert ready.mask.getpixel((64, 64)) == 0
    assert ready.mask.getpixel((5, 5)) == 255
    assert ready.image.tobytes() == circle_image().tobytes()
    inverted = inpainting.arrange(
        circle_image(), mask_of((32, 32, 96, 96)), image_request(**whole, inpainting_mask_invert=1), (128, 128)
    )
    assert inverted.mask.getpixel((64, 64)) == 255
    assert inverted.mask.getpixel((5, 5)) == 0


def test_transparent_mask_uses_its_alpha_channel() -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 32, 64))
    binary_mask = inpainting.to_binary(mask, (64, 64))
    assert (binary_mask.getpixel((10, 10)), binary_mask.getpixel((50, 10))) == (255, 0)
    opaque = inpainting.to_binary(Image.new("RGBA", (64, 64), (255, 255, 255, 255)), (32, 32))
    assert (opaque.size, opaque.getextrema()) == ((32, 32), (255, 255))


def test_only_the_region_around_the_mask_is_generated_and_its_position_kept() -> None:
    image = circle_image(256)
    ready = inpainting.arrange(
        image,
        mask_of((100, 120, 140, 140), (256, 256)),
        image_request(mask_blur=0, inpaint_full_res_padding=10),
        (128, 128),
    )
    assert ready.box == (90, 100, 150, 160)  # 60×40 with its padding, widened to a square
    assert ready.full_image.tobytes() == image.tobytes()
    assert ready.image.size == ready.mask.size == (128, 128)
    assert ready.box_mask.size == (60, 60)
    assert ready.box_mask.getpixel((30, 30)) == 0
    assert ready.box_mask.getpixel((2, 2)) == 255


def test_regions_stay_inside_the_image() -> None:
    assert inpainting.expand_region((0, 0, 10, 10), 32, (100, 60), (128, 64)) == (0, 0, 84, 42)
    assert inpainting.expand_region((90, 10, 100, 50), 0, (100, 60), (64, 64)) == (60, 10, 100, 50)
    assert inpainting.expand_region((0, 20, 100, 30), 0, (100, 60), (64, 64)) == (0, 0, 100, 60)


def test_an_empty_mask_repaints_nothing() -> None:
    ready = inpainting.arrange(circle_image(), mask_of((0, 0, 0, 0)), image_request(), (128, 128))
    assert ready.full_image is None
    assert ready.mask.getextrema() == (255, 255)
    assert ready.image.tobytes() == circle_image().tobytes()


def test_holes_take_the_colors_around_them() -> None:
    image = Image.new("RGB", (128, 128), "blue")
    ImageDraw.Draw(image).rectangle((40, 40, 80, 80), fill="red")
    hole = mask_of((36, 36, 90, 90))
    filled = inpainting.fill_hole(image, hole)
    assert np.abs(np.asarray(filled).astype(int) - (0, 0, 255)).max() <= 2
    everything = mask_of((0, 0, 128, 128))
    assert inpainting.fill_hole(image, everything).tobytes() == image.tobytes()


def test_pixels_outside_the_hole_are_unchanged() -> None:
    image = circle_image()
    filled = np.asarray(inpainting.fill_hole(image, mask_of((50, 50, 70, 70))))
    same = (filled == np.asarray(image)).all(axis=2)
    same[50:70, 50:70] = True
    assert same.all()


@pytest.mark.parametrize(("mode", "left"), [(0, "red"), (1, "white"), (2, "red")])
def test_images_are_resized_by_resize_mode(mode: int, left: str) -> None:
    """Stretched and filled pictures keep their left edge, a cropped one loses it."""
    image = Image.new("RGB", (256, 128), "white")
    image.paste("red", (0, 0, 40, 128))
    ready = inpainting.arrange(image, None, ImageToImage(resize_mode=mode), (128, 128))
    assert ready.image.size == (128, 128)
    assert ready.image.getpixel((3, 64)) == {"red": (255, 0, 0), "white": (255, 255, 255)}[left]


# Enlarging


def test_images_are_upscaled() -> None:
    image = circle_image(64)
    assert extras.upscale(image, Upscale(upscaler_1="Lanczos", upscaling_resize=2.5)).size == (160, 160)
    assert extras.upscale(image, Upscale(upscaler_1="None", upscaling_resize=4)) is image
    nearest = extras.upscale(image, Upscale(upscaler_1="Nearest", upscaling_resize=2))
    assert nearest.tobytes() == np.asarray(image).repeat(2, 0).repeat(2, 1).tobytes()
    to_size = {"resize_mode": 1, "upscaler_1": "Lanczos", "upscaling_resize_w": 100, "upscaling_resize_h": 50}
    assert extras.upscale(image, Upscale(**to_size)).size == (100, 50)
    assert extras.upscale(image, Upscale(**to_size, upscaling_crop=False)).size == (100, 100)
    blended = extras.upscale(
        image, Upscale(upscaler_1="Lanczos", upscaler_2="Nearest", extras_upscaler_2_visibility=1.0)
    )
    assert blended.tobytes() == nearest.tobytes()
    with pytest.raises(RequestRejected, match="too large"):
        extras.upscale(circle_image(1024), Upscale(upscaler_1="Nearest", upscaling_resize=16))


def test_features_needing_a_missing_model_are_refused_by_name() -> None:
    for fields, name in (
        ({"gfpgan_visibility": 0.5}, "gfpgan_visibility"),
        ({"codeformer_visibility": 1}, "codeformer_visibility"),
        ({"upscaler_1": "R-ESRGAN 4x+"}, "R-ESRGAN 4x"),
        ({"upscaler_2": "LDSR"}, "LDSR"),
    ):
        with pytest.raises(RequestRejected, match=name):
            extras.refuse_unsupported(Upscale(**fields))


# Options and plans

COMMON = {
    "file_size": 1,
    "source": "unused",
    "source_type": "path",
    "format": "diffusers",
    "prediction_type": "epsilon",
    "variant": "normal",
    "repo_variant": "",
}


@pytest.fixture
async def library(resources: Resources) -> Resources:
    """Two main models and a VAE."""
    for key, kind, base in (("m1", "main", "sd-1"), ("m2", "main", "sd-2"), ("v1", "vae", "sd-1")):
        record = COMMON | {"key": key, "name": f"Name {key}", "path": f"/some/{key}.safetensors", "type": kind}
        record |= {"base": base, "hash": f"blake3:{key}0123456789abcdef"}
        async with resources.database.write() as connection:
            await models.add(connection, model_registry.parse(record))
    return resources


@pytest.mark.parametrize(
    "name",
    [
        "Name m2 [m201234567]",
        "name M2",
        "m2",
        "m201234567",
        "m20123456789abcdef",
        "m2.safetensors",
        "/some/m2.safetensors",
    ],
)
async def test_checkpoints_are_found_by_every_name(library: Resources, name: str) -> None:
    async with library.database.read() as connection:
        assert (await options.find_checkpoint(connection, name)).key == "m2"


async def test_only_supported_options_are_stored(library: Resources) -> None:
    async with library.database.write() as connection:
        listed = await options.describe(connection, await options.load(connection, SYSTEM))
        assert listed["sd_model_checkpoint"] == "Name m1 [m101234567]"
        new = listed | {"sd_model_checkpoint": "Name m2 [m201234567]", "sd_vae": "Name v1", "unknown": {"a": 1}}
        new |= {"CLIP_stop_at_last_layers": 2, "samples_format": "jpeg"}
        await options.save(connection, SYSTEM, await options.apply_changes(connection, Options(), new))
    async with library.database.write() as connection:
        stored = await options.load(connection, SYSTEM)
        assert (stored.checkpoint, stored.vae, stored.last_layer, stored.format) == ("m2", "v1", 2, "jpeg")
        assert (await options.apply_changes(connection, stored, {"sd_vae": "Automatic"})).vae is None
        assert (await options.apply_changes(connection, stored, {})) == stored
        await models.delete(connection, "m2")
        assert (await options.load(connection, SYSTEM)).checkpoint is None


async def test_invalid_options_are_refused(library: Resources) -> None:
    async with library.database.read() as connection:
        for wrong, error in (
            ({"sd_model_checkpoint": "nobody"}, generation.ModelNotFound),
            ({"sd_vae": "nobody"}, options.VaeNotFound),
            ({"CLIP_stop_at_last_layers": 0}, RequestRejected),
            ({"CLIP_stop_at_last_layers": "x"}, RequestRejected),
            ({"samples_format": "gif"}, RequestRejected),
        ):
            with pytest.raises(error):
                await options.apply_changes(connection, Options(), wrong)


async def test_request_is_translated_into_a_plan(library: Resources) -> None:
    request = TextToImage(
        prompt="((a)) cat",
        negative_prompt="[b]",
        seed=5,
        batch_size=2,
        n_iter=2,
        steps=9,
        cfg_scale=3,
        width=200,
        height=130,
        sampler_name="DPM++ 2M",
        tiling=True,
        override_settings={"sd_vae": "Name v1", "CLIP_stop_at_last_layers": 3, "eta_noise_seed_delta": 31337},
    )
    plan = await make_plan(library, SYSTEM, request)
    settings = plan.resolved.settings
    assert [prompt_language.write(prompt) for prompt in (settings.prompt, settings.negative_prompt)] == [
        "(a)1.21 cat",
        "(b)0.9091",
    ]
    assert list(plan.resolved.seeds) == [5, 6, 7, 8]
    assert (settings.width, settings.height, settings.steps, settings.guidance) == (200, 128, 9, 3)
    assert (settings.scheduler, settings.clip_skip, settings.seamless) == ("dpmpp_2m_k", 2, True)
    assert settings.vae["key"] == "v1"
    assert settings.hires_fix is settings.init_image is None


async def test_subseeds_increment_while_the_seed_stays(library: Resources) -> None:
    plan = await make_plan(library, SYSTEM, TextToImage(seed=5, subseed=9, subseed_strength=0.3, n_iter=3))
    assert (list(plan.resolved.seeds), plan.subseeds) == ([5, 5, 5], [9, 10, 11])
    assert plan.resolved.settings.variation.strength == 0.3
    without = await make_plan(library, SYSTEM, TextToImage(seed=5, subseed=9, n_iter=3))
    assert (list(without.resolved.seeds), without.subseeds) == ([5, 6, 7], [9, 10, 11])
    assert without.resolved.settings.variation is None
    assert (await make_plan(library, SYSTEM, TextToImage())).resolved.seeds != (
        await make_plan(library, SYSTEM, TextToImage())
    ).resolved.seeds


@pytest.mark.parametrize(
    ("fields", "size", "first"),
    [
        ({"hr_scale": 1.5}, (768, 768), (512, 512)),
        ({"hr_resize_x": 1024, "hr_resize_y": 1024}, (1024, 1024), (512, 512)),
        ({"hr_resize_x": 640}, (640, 640), (512, 512)),
        ({"width": 256, "height": 512, "hr_resize_y": 1024}, (512, 1024), (256, 512)),
        ({"firstphase_width": 256, "firstphase_height": 256, "width": 512, "height": 512}, (512, 512), (256, 256)),
    ],
)
async def test_hires_fix(library: Resources, fields: dict[str, Any], size: tuple[int, int], first: Any) -> None:
    plan = await make_plan(library, SYSTEM, TextToImage(enable_hr=True, denoising_strength=0.5, steps=10, **fields))
    settings = plan.resolved.settings
    assert (settings.width, settings.height) == first
    assert (settings.hires_fix.width, settings.hires_fix.height) == size
    assert (settings.hires_fix.steps, settings.hires_fix.strength) == (20, 0.5)  # of which half are done: 10
    assert not settings.hires_fix.in_pixels


async def test_hires_fix_in_pixels_with_a_separate_sampler(library: Resources) -> None:
    fields = {"hr_upscaler": "Nearest", "hr_sampler_name": "DDIM", "hr_second_pass_steps": 7, "denoising_strength": 1.0}
    fix = (await make_plan(library, SYSTEM, TextToImage(enable_hr=True, **fields))).resolved.settings.hires_fix
    assert (fix.in_pixels, fix.resample, fix.scheduler, fix.steps) == (True, "nearest", "ddim", 7)
    same = {"hr_sampler_name": "Use same sampler", "hr_scheduler": "Use same scheduler", "hr_upscaler": "None"}
    fix = (await make_plan(library, SYSTEM, TextToImage(enable_hr=True, **same))).resolved.settings.hires_fix
    assert (fix.in_pixels, fix.resample, fix.scheduler) == (True, "lanczos", None)


HIRES = {"enable_hr": True}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"restore_faces": True}, "restore_faces"),
        ({"styles": ["photo"]}, "photo"),
        ({"script_name": "X/Y/Z plot"}, "X/Y/Z plot"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True}]}}}, "ControlNet"),
        ({"refiner_checkpoint": "Name m1"}, "do not support refiners"),
        ({"seed_resize_from_w": 64}, "seed_resize_from_w"),
        ({"s_churn": 0.5}, "s_churn"),
        ({"s_noise": 1.1}, "s_noise"),
        ({"s_min_uncond": 1}, "s_min_uncond"),
        ({"infotext": "a cat"}, "infotext"),
        ({"batch_size": 8, "n_iter": 5}, "limits.request_images"),
        ({"width": 10_000, "height": 10_000}, "too large"),
        ({"override_settings": {"sd_model_checkpoint": "Name m2", "sd_vae": "Name v1"}}, "is for sd-1 models"),
        (HIRES | {"hr_upscaler": "R-ESRGAN 4x+"}, "R-ESRGAN 4x"),
        (HIRES | {"hr_prompt": "a AND b"}, "AND"),
        (HIRES | {"hr_prompt": "x" * 200_000}, "limits.prompt_characters"),
        (HIRES | {"hr_prompt": "a <lora:no such one>"}, "no such one"),
        (HIRES | {"hr_scale": 0.5}, "hr_scale"),
        (HIRES | {"hr_scale": 16}, "too large"),
        (HIRES | {"hr_resize_x": 1024, "hr_resize_y": 512}, "aspect ratio"),
    ],
)
async def test_unsupported_fields_are_refused_by_name(library: Resources, fields: Any, named: str) -> None:
    errors = RequestRejected, generation.InvalidGeneration, generation.ExtraModelNotFound
    with pytest.raises(errors, match=named):
        await make_plan(library, SYSTEM, TextToImage(**fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"init_images": ["a", "b"]}, "only one initial image"),
        ({"latent_mask": "a"}, "latent_mask"),
        ({"resize_mode": 3}, "resize_mode"),
        ({"mask": "a", "inpainting_fill": 3}, "latent nothing"),
    ],
)
async def test_fields_unsupported_by_img2img_are_refused_by_name(library: Resources, fields: Any, named: str) -> None:
    with pytest.raises(RequestRejected, match=named):
        await make_plan(library, SYSTEM, ImageToImage(**fields))


async def test_unsupported_fields_with_neutral_values_are_accepted(library: Resources) -> None:
    """What common clients send with every request."""
    idle = {"styles": [""], "script_name": "None", "alwayson_scripts": {"x": {"args": []}}, "refiner_checkpoint": ""}
    idle |= {
        "s_churn": 0,
        "s_noise": 1,
        "s_tmax": 0,
        "seed_resize_from_h": 0,
        "hr_upscaler": "R-ESRGAN 4x+",
        "hr_scale": 0,
    }
    assert (await make_plan(library, SYSTEM, TextToImage(**idle))).count == 1


async def test_override_settings_persist_on_request(library: Resources) -> None:
    await make_plan(library, SYSTEM, TextToImage(override_settings={"sd_model_checkpoint": "m2"}))
    async with library.database.read() as connection:
        assert (await options.load(connection, SYSTEM)).checkpoint is None
    staying = {"override_settings": {"sd_model_checkpoint": "m2"}, "override_settings_restore_afterwards": False}
    await make_plan(library, SYSTEM, TextToImage(**staying))
    async with library.database.read() as connection:
        assert (await options.load(connection, SYSTEM)).checkpoint == "m2"


def test_configured_pixel_limit_applies_to_reading_infotext() -> None:
    data = png(circle_image(64))
    with pytest.raises(TooManyPixels):
        infotext.read_infotext(data, Limits(image_pixels=64 * 63))
