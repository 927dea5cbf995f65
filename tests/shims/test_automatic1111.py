"""AUTOMATIC1111's API against the real server, with requests as its clients send them."""

import base64
import contextlib
import http.client as http_client
import io
import json
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.server_process import PATIENCE, Server
from tests.shims.conftest import circle_image, from_base64, mean_color, object_color, png, read_image

API = "/sdapi/v1"
CIRCLE = "a red circle on a white background"
SMALL = {"width": 128, "height": 128, "steps": 20, "seed": 3}
QUICK = {"width": 64, "height": 64, "steps": 2, "seed": 3}
LONG = {"prompt": "a cat", "width": 128, "height": 128, "steps": 300, "seed": 3}


@pytest.fixture(autouse=True)
def same_options(http: httpx.Client) -> Iterator[None]:
    """Each test leaves the options as they were."""
    before = http.get(f"{API}/options").json()
    yield
    http.post(f"{API}/options", json=before).raise_for_status()


def ask(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = http.post(f"{API}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def txt2img(http: httpx.Client, prompt: str = CIRCLE, **body: Any) -> tuple[list[Image.Image], dict[str, Any]]:
    answer = ask(http, "txt2img", prompt=prompt, **body)
    return [from_base64(text) for text in answer["images"]], json.loads(answer["info"])


def img2img(http: httpx.Client, image: Image.Image, **body: Any) -> Image.Image:
    answer = ask(http, "img2img", init_images=[to_base64(image)], **body)
    (text,) = answer["images"]
    return from_base64(text)


def to_base64(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def is_red(color: tuple[float, float, float]) -> bool:
    red, green, blue = color
    return red > 150 and green < 110 and blue < 110


def is_blue(color: tuple[float, float, float]) -> bool:
    red, _, blue = color
    return blue > 120 and red < 110


def is_white(color: tuple[float, float, float]) -> bool:
    return min(color) > 200


# Making pictures


def webui(server: Server, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Ask as Open WebUI does with an empty key and a base address that ends in a slash; httpx would not send that."""
    wire = http_client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    headers = {"authorization": "Basic ", "User-Agent": "Python/3.11 aiohttp/3.14.5", "Accept": "*/*"}
    content = None if body is None else json.dumps(body)
    with contextlib.closing(wire):
        wire.request(method, f"/{API}/{path}", content, headers | {"Content-Type": "application/json"})
        answer = wire.getresponse()
        assert answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(answer.read())


def test_open_webui_requests(server: Server) -> None:
    """As captured, with the whole options object sent back."""
    status, options = webui(server, "GET", "options")
    assert status == 200
    _, listed = webui(server, "GET", "sd-models")
    assert [model["model_name"] for model in listed] == ["Embedded Tiny"]
    assert listed[0]["title"] == options["sd_model_checkpoint"]
    assert webui(server, "POST", "options", options | {"sd_model_checkpoint": listed[0]["title"]})[0] == 200
    body = {"prompt": CIRCLE, "batch_size": 2, "width": 128, "height": 128, "steps": 50, "negative_prompt": "blue"}
    _, answer = webui(server, "POST", "txt2img", body)
    assert answer["info"]
    assert len(answer["images"]) == 2
    for image in map(from_base64, answer["images"]):
        assert (image.format, image.size) == ("PNG", (128, 128))
        assert is_red(object_color(image))
        assert is_white(mean_color(image, (0, 0, 12, 12)))


def test_info_is_text_with_the_fields_librechat_reads(http: httpx.Client) -> None:
    body = {"prompt": CIRCLE, "negative_prompt": "", "cfg_scale": 4.5, "steps": 22, "width": 128, "height": 64}
    answer = ask(http, "txt2img", **body)
    assert isinstance(answer["info"], str)
    info = json.loads(answer["info"])
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (128, 64, 22, 4.5)
    assert info["infotexts"][0].startswith(f"{CIRCLE}\nSteps: 22, ")
    assert f"Seed: {info['seed']}, Size: 128x64" in info["infotexts"][0]
    assert answer["parameters"]["prompt"] == CIRCLE
    assert from_base64(answer["images"][0]).info["parameters"] == info["infotexts"][0]


def test_lists_as_silly_tavern_reads_them(http: httpx.Client) -> None:
    names = {"samplers": "Euler a", "schedulers": "karras", "upscalers": "Lanczos", "latent-upscale-modes": "Latent"}
    for path, name in names.items():
        assert name in [entry["name"] for entry in http.get(f"{API}/{path}").json()]
    for path in ("sd-vae", "sd-modules", "loras", "hypernetworks", "face-restorers", "prompt-styles"):
        assert http.get(f"{API}/{path}").json() == []
    assert http.get(f"{API}/embeddings").json() == {"loaded": {}, "skipped": {}}
    idle = http.get(f"{API}/progress").json()
    assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0.0, 0, None)
    for path in ("interrupt", "skip", "refresh-checkpoints"):
        assert http.post(f"{API}/{path}").status_code == 200


def test_silly_tavern_requests(http: httpx.Client) -> None:
    """With all that it sends along and that means nothing here, or nothing as it is."""
    settings = {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "forge_additional_modules": []}
    (image,), info = txt2img(
        http,
        negative_prompt="blurry",
        sampler_name="DPM++ 2M",
        scheduler="Karras",
        steps=20,
        cfg_scale=4,
        width=128,
        height=128,
        restore_faces=False,
        enable_hr=False,
        hr_upscaler="Latent",
        hr_scale=1,
        hr_additional_modules=[],
        denoising_strength=0.7,
        hr_second_pass_steps=0,
        seed=None,
        override_settings=settings,
        override_settings_restore_afterwards=True,
        clip_skip=1,
        save_images=True,
        send_images=True,
        do_not_save_grid=False,
        do_not_save_samples=False,
    )
    assert is_red(object_color(image))
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in info["infotexts"][0]


def test_seeds_reproduce_images_and_increment(http: httpx.Client) -> None:
    images, info = txt2img(http, **SMALL | {"batch_size": 1, "n_iter": 2})
    assert info["all_seeds"] == [3, 4]
    (second,), _ = txt2img(http, **SMALL | {"seed": 4})
    assert pixels(second).tobytes() == pixels(images[1]).tobytes()
    assert pixels(images[0]).tobytes() != pixels(images[1]).tobytes()
    _, first = txt2img(http, **QUICK | {"seed": -1})
    _, other = txt2img(http, **QUICK | {"seed": -1})
    assert first["seed"] != other["seed"]


def test_subseeds_blend_in_another_image(http: httpx.Client) -> None:
    """At strength 1 it is the subseed's picture; in between it is neither."""
    (first,), _ = txt2img(http, **SMALL)
    (other,), _ = txt2img(http, **SMALL | {"seed": 8})
    (whole,), info = txt2img(http, **SMALL, subseed=8, subseed_strength=1)
    (half, next_half), half_info = txt2img(http, **SMALL, subseed=8, subseed_strength=0.5, batch_size=2)
    assert np.abs(pixels(whole) - pixels(other)).max() <= 2
    assert len({pixels(image).tobytes() for image in (first, other, half, next_half)}) == 4
    assert (info["all_seeds"], info["all_subseeds"]) == ([3], [8])
    assert (half_info["all_seeds"], half_info["all_subseeds"]) == ([3, 3], [8, 9])
    assert "Variation seed: 9, Variation seed strength: 0.5" in half_info["infotexts"][1]


def test_prompt_weights_are_recorded_in_both_syntaxes(http: httpx.Client) -> None:
    (image,), info = txt2img(http, "a ((red)) circle, [on] a (white:1.2) background", **QUICK)
    assert json.loads(image.info["invokeai_metadata"])["positive_prompt"] == (
        "a (red)1.21 circle, (on)0.9091 a (white)1.2 background"
    )
    assert info["prompt"] == "a ((red)) circle, [on] a (white:1.2) background"
    assert image.info["parameters"].startswith(info["prompt"])


def test_weights_and_break_change_the_image(http: httpx.Client) -> None:
    (even,), _ = txt2img(http, "a red circle on a blue background", **SMALL)
    (same,), _ = txt2img(http, "a (red:1.0) circle on a blue background", **SMALL)
    (weighted,), _ = txt2img(http, "a (red:0.2) circle on a blue background", **SMALL)
    (chunks,), _ = txt2img(http, "a red circle BREAK on a blue background", **SMALL)
    assert pixels(even).tobytes() == pixels(same).tobytes()
    assert np.abs(pixels(even) - pixels(weighted)).mean() > 1
    assert np.abs(pixels(even) - pixels(chunks)).mean() > 1


def test_samplers_and_schedules(http: httpx.Client) -> None:
    """Each makes a picture of its own; one that is not to be had is told of."""
    images = {}
    for name, schedule in (("Euler a", None), ("DPM++ 2M", "karras"), ("DPM++ 2M", "uniform"), ("DDIM", None)):
        (image,), info = txt2img(http, **SMALL, sampler_name=name, scheduler=schedule)
        assert info["sampler_name"] == name
        assert is_red(object_color(image))
        images[name, schedule] = pixels(image).tobytes()
    assert len(set(images.values())) == len(images)
    (old_name,), _ = txt2img(http, **SMALL, sampler_index="DPM++ 2M Karras")
    assert pixels(old_name).tobytes() == images["DPM++ 2M", "karras"]
    _, info = txt2img(http, **QUICK, sampler_name="Euler a", scheduler="Karras")
    assert info["extra_generation_params"] == {"Schedule type": "Uniform", "Requested schedule type": "Karras"}
    _, info = txt2img(http, **QUICK, sampler_name="DPM++ 2S a Karras")
    assert info["sampler_name"] == "DPM++ 2S"
    assert info["extra_generation_params"] == {"Schedule type": "Karras", "Requested sampler": "DPM++ 2S a"}
    assert "Sampler: DPM++ 2S, Schedule type: Karras" in info["infotexts"][0]
    assert "Requested sampler: DPM++ 2S a" in info["infotexts"][0]


def test_latent_upscalers_differ(http: httpx.Client) -> None:
    listed = [entry["name"] for entry in http.get(f"{API}/latent-upscale-modes").json()]
    assert listed[:3] == ["Latent", "Latent (antialiased)", "Latent (bicubic)"]
    results = set()
    for name in ("Latent", "Latent (bicubic)", "latent (NEAREST)"):
        (image,), _ = txt2img(http, **QUICK, enable_hr=True, hr_scale=2, hr_upscaler=name, denoising_strength=0.5)
        results.add(pixels(image).tobytes())
    assert len(results) == 3
    answer = http.post(f"{API}/txt2img", json={"prompt": "a", "enable_hr": True, "hr_upscaler": "R-ESRGAN 4x+"})
    assert (answer.status_code, "there are: Latent, Latent (antialiased)" in answer.json()["detail"]) == (400, True)


def test_memory_and_flags(http: httpx.Client, server: Server) -> None:
    memory = http.get(f"{API}/memory").json()
    assert set(memory["ram"]) == {"free", "used", "total"}
    assert 0 < memory["ram"]["used"] < memory["ram"]["total"]
    assert memory["cuda"] == {"error": "no worker with a GPU is ready"}
    flags = http.get(f"{API}/cmd-flags").json()
    assert (flags["port"], flags["listen"], flags["use_cpu"], flags["no_half"]) == (server.port, False, ["all"], True)
    assert http.post(f"{API}/unload-checkpoint").json() == http.post(f"{API}/reload-checkpoint").json() == {}


@pytest.mark.parametrize("path", [f"{API}/interrogate", "/controlnet/detect"])
def test_missing_features_are_named(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={})
    assert (answer.status_code, answer.json()["detail"]) == (404, f"this server does not have POST {path}")


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos", "Nearest"])
def test_hires_fix(http: httpx.Client, upscaler: str) -> None:
    fields = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": upscaler, "denoising_strength": 0.6}
    (image,), info = txt2img(http, **SMALL, **fields)
    assert image.size == (256, 256)
    assert (info["width"], info["height"]) == (128, 128)
    assert f"Hires resize: 256x256, Hires steps: 20, Hires upscaler: {upscaler}" in info["infotexts"][0]
    assert is_red(object_color(image))
    assert is_white(mean_color(image, (0, 0, 24, 24)))


def test_tiling_changes_the_image_and_is_recorded(http: httpx.Client) -> None:
    (image,), info = txt2img(http, "a mountain, night with stars", **SMALL, tiling=True)
    (plain,), _ = txt2img(http, "a mountain, night with stars", **SMALL)
    assert "Tiling: True" in info["infotexts"][0]
    assert pixels(image).tobytes() != pixels(plain).tobytes()


@pytest.mark.parametrize(("format", "expected"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_formats(http: httpx.Client, format: str, expected: str) -> None:  # noqa: A002
    answer = ask(http, "txt2img", prompt="ein Fuß", **QUICK, override_settings={"samples_format": format})
    assert from_base64(answer["images"][0]).format == expected
    text_info = ask(http, "png-info", image=f"data:image/x;base64,{answer['images'][0]}")
    assert text_info["info"] == json.loads(answer["info"])["infotexts"][0]
    assert (text_info["parameters"]["Prompt"], text_info["parameters"]["Size-1"]) == ("ein Fuß", "64")


def test_images_can_be_saved_without_being_sent(http: httpx.Client) -> None:
    images, info = txt2img(http, **QUICK, send_images=False, save_images=True)
    assert images == []
    assert len(info["infotexts"]) == 1
    (newest,) = http.get("/api/v1/images/", params={"limit": 1, "is_intermediate": False}).json()["items"]
    assert (newest["width"], newest["image_origin"]) == (64, "internal")


# Beginning with a picture


def test_denoising_strength_controls_img2img(http: httpx.Client) -> None:
    """A little strength keeps it, much follows the prompt."""
    start = circle_image()
    fields = SMALL | {"prompt": "a blue circle on a white background"}
    result = img2img(http, start, **fields, denoising_strength=0.1)
    assert is_red(object_color(result))
    assert np.abs(pixels(result) - pixels(start)).mean() < 15
    assert is_blue(object_color(img2img(http, start, **fields, denoising_strength=0.9)))
    answer = ask(http, "img2img", init_images=[f"data:image/png;base64,{to_base64(start)}"], **QUICK)
    assert answer["parameters"]["init_images"] is None
    assert json.loads(answer["info"])["denoising_strength"] == 0.75
    answer = ask(http, "img2img", init_images=[to_base64(start)], include_init_images=True, **QUICK)
    assert answer["parameters"]["init_images"] == [to_base64(start)]


def test_image_is_cropped_to_the_requested_size(http: httpx.Client) -> None:
    wide = Image.new("RGB", (384, 128), "lime")
    wide.paste(circle_image(), (128, 0))
    result = img2img(http, wide, prompt=CIRCLE, **SMALL, resize_mode=1, denoising_strength=0.1)
    assert result.size == (128, 128)
    assert is_white(mean_color(result, (0, 0, 12, 12)))


def inside(side: int, half: int) -> Image.Image:
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rectangle((side // 2 - half, side // 2 - half, side // 2 + half, side // 2 + half), fill=255)
    return mask


@pytest.mark.parametrize("fill", [0, 1, 2])
@pytest.mark.parametrize("inverted", [False, True])
def test_inpainting_the_whole_image(http: httpx.Client, fill: int, inverted: bool) -> None:
    start, mask = circle_image(), inside(128, 36)
    sent = Image.eval(mask, lambda value: 255 - value) if inverted else mask
    result = img2img(
        http,
        start,
        prompt="a blue circle on a white background",
        **SMALL,
        mask=to_base64(sent),
        mask_blur=0,
        inpaint_full_res=False,
        inpainting_fill=fill,
        inpainting_mask_invert=int(inverted),
        denoising_strength=0.9,
    )
    changed = np.abs(pixels(result) - pixels(start)).max(axis=2) > 0
    assert not changed[np.asarray(mask) == 0].any()
    assert is_blue(object_color(result))


def test_mask_border_is_blurred(http: httpx.Client) -> None:
    start, mask = circle_image(), inside(128, 30)
    body = {"prompt": "a blue square", "mask": to_base64(mask), "mask_blur": 4, "inpaint_full_res": False}
    result = img2img(http, start, **SMALL, **body, denoising_strength=1)
    changed = np.abs(pixels(result) - pixels(start)).max(axis=2) > 0
    near = np.asarray(inside(128, 30 + 4 * 4)) > 0
    assert not changed[~near].any()
    assert (changed & near & (np.asarray(mask) == 0)).any()


def test_inpainting_only_the_region_of_the_mask(http: httpx.Client) -> None:
    """The region is made at full size and put back: the answer, and what is in the gallery, is the whole picture."""
    start = Image.new("RGB", (320, 256), "white")
    ImageDraw.Draw(start).ellipse((32, 32, 96, 96), fill=(220, 30, 30))
    mask = Image.new("L", start.size)
    ImageDraw.Draw(mask).rectangle((24, 24, 104, 104), fill=255)
    body = {"mask": to_base64(mask), "mask_blur": 2, "inpaint_full_res_padding": 16, "denoising_strength": 0.95}
    result = img2img(http, start, prompt="a blue circle on a white background", **SMALL, **body)
    assert result.size == start.size
    assert "Inpaint area: Only masked, Masked area padding: 16" in result.info["parameters"]
    changed = np.abs(pixels(result) - pixels(start)).max(axis=2) > 0
    changed[24 - 8 : 105 + 8, 24 - 8 : 105 + 8] = False
    assert not changed.any()
    assert is_blue(mean_color(result, (52, 52, 76, 76)))
    (newest,) = http.get("/api/v1/images/", params={"limit": 1, "is_intermediate": False}).json()["items"]
    gallery_image = read_image(http.get(f"/api/v1/images/i/{newest['image_name']}/full").content)
    assert pixels(gallery_image).tobytes() == pixels(result).tobytes()
    assert json.loads(gallery_image.info["invokeai_metadata"])["seed"] == 3


# Pictures without a run


def test_images_are_upscaled(http: httpx.Client, enqueued: Callable[[], int]) -> None:
    before = enqueued()
    image = to_base64(circle_image(64))
    upscaled = ask(http, "extra-single-image", image=image, upscaling_resize=3, upscaler_1="Lanczos")
    assert (from_base64(upscaled["image"]).size, upscaled["html_info"]) == ((192, 192), "")
    files = [{"data": image, "name": "a.png"}, {"data": image, "name": "b.png"}]
    several = ask(http, "extra-batch-images", imageList=files, upscaler_1="Nearest")
    assert [from_base64(text).size for text in several["images"]] == [(128, 128)] * 2
    assert enqueued() == before


def test_infotext_of_other_tools_is_read(http: httpx.Client) -> None:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text(
        "parameters", "a cat\nNegative prompt: a dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"
    )
    file = io.BytesIO()
    circle_image().save(file, "PNG", pnginfo=texts)
    text_info = ask(http, "png-info", image=base64.b64encode(file.getvalue()).decode())
    assert text_info["info"].startswith("a cat\n")
    assert text_info["parameters"]["Sampler"] == "Euler a"
    assert text_info["parameters"]["Size-2"] == "768"
    assert ask(http, "png-info", image=to_base64(circle_image())) == {"info": "", "items": {}, "parameters": {}}


# Options


def test_supported_options_are_stored_and_applied(http: httpx.Client) -> None:
    options = http.get(f"{API}/options").json()
    new = options | {"samples_format": "webp", "CLIP_stop_at_last_layers": 2, "of_another_server": {"a": [1]}}
    assert http.post(f"{API}/options", json=new).status_code == 200
    assert http.get(f"{API}/options").json() == options | {"samples_format": "webp", "CLIP_stop_at_last_layers": 2}
    (image,), info = txt2img(http, **QUICK)
    assert (image.format, info["clip_skip"]) == ("WEBP", 2)
    for wrong, status in (
        ({"sd_model_checkpoint": "none.ckpt"}, 404),
        ({"sd_vae": "x"}, 404),
        ({"samples_format": "gif"}, 400),
    ):
        answer = http.post(f"{API}/options", json=wrong)
        assert answer.status_code == status
        assert answer.json()["error"] == "HTTPException"
        assert answer.json()["detail"]


# What is wrong

BIG = "x" * 10_000_000


def bomb() -> str:
    """Return a small file that says it is 60000×60000 pixels."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in (
        (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"0")),
    ):
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", zlib.crc32(name + content))]
    return base64.b64encode(b"".join(parts)).decode()


WRONG: list[tuple[str, dict[str, Any], int]] = [
    ("options", {"samples_format": BIG}, 413),
    ("txt2img", {"prompt": BIG}, 400),
    ("txt2img", {"prompt": "x" * 100_000}, 400),
    ("txt2img", {"prompt": 5}, 400),
    ("txt2img", {"prompt": ["a"]}, 400),
    ("txt2img", {"prompt": "a <lora:style:0.8>"}, 404),
    ("txt2img", {"prompt": "a <hypernet:style:0.8>"}, 400),
    ("txt2img", {"prompt": "a", "batch_size": 100}, 400),
    ("txt2img", {"prompt": "a", "n_iter": 10**30}, 422),
    ("txt2img", {"prompt": "a", "batch_size": 0}, 400),
    ("txt2img", {"prompt": "a", "width": 100_000, "height": 1}, 400),
    ("txt2img", {"prompt": "a", "width": -512}, 400),
    ("txt2img", {"prompt": "a", "width": "wide"}, 400),
    ("txt2img", {"prompt": "a", "steps": 0}, 400),
    ("txt2img", {"prompt": "a", "steps": 10**6}, 400),
    ("txt2img", {"prompt": "a", "cfg_scale": 1e999}, 422),
    ("txt2img", {"prompt": "a", "seed": 2**40}, 400),
    ("txt2img", {"prompt": "a", "seed": -7}, 400),
    ("txt2img", {"prompt": "a", "subseed_strength": 2}, 400),
    ("txt2img", {"prompt": "a", "sampler_name": "nobody"}, 404),
    ("txt2img", {"prompt": "a", "scheduler": "nobody"}, 404),
    ("txt2img", {"prompt": "a", "override_settings": {"sd_model_checkpoint": "nobody"}}, 404),
    ("txt2img", {"prompt": "a", "override_settings": []}, 400),
    ("txt2img", {"prompt": "a", "restore_faces": True}, 400),
    ("img2img", {"prompt": "a"}, 404),
    ("img2img", {"init_images": ["http://127.0.0.1:1/a.png"]}, 400),
    ("img2img", {"init_images": ["file:///etc/passwd"]}, 400),
    ("img2img", {"init_images": ["not base64!"]}, 400),
    ("img2img", {"init_images": ["aGVsbG8="]}, 400),
    ("img2img", {"init_images": [""]}, 400),
    ("img2img", {"init_images": "a"}, 400),
    ("img2img", {"init_images": [bomb()]}, 400),
    ("img2img", {"init_images": [to_base64(circle_image())], "mask": "aGVsbG8="}, 400),
    ("img2img", {"init_images": [to_base64(circle_image())] * 2}, 400),
    ("img2img", {"init_images": [to_base64(circle_image())], "denoising_strength": 7}, 400),
    ("extra-single-image", {}, 400),
    ("extra-single-image", {"image": "!"}, 400),
    ("extra-single-image", {"image": to_base64(circle_image()), "upscaler_1": "ESRGAN_4x"}, 400),
    ("extra-single-image", {"image": to_base64(circle_image()), "gfpgan_visibility": 1}, 400),
    ("extra-batch-images", {"imageList": []}, 400),
    ("png-info", {"image": "aGVsbG8="}, 400),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_invalid_requests_return_errors_and_enqueue_nothing(
    http: httpx.Client, enqueued: Callable[[], int], number: int
) -> None:
    path, body, status = WRONG[number]
    before = enqueued()
    content = json.dumps(body).replace("Infinity", "1e999")
    answer = http.post(f"{API}/{path}", content=content)
    assert answer.status_code == status, answer.text[:500]
    error = answer.json()
    assert error["error"] == "HTTPException"
    assert error["detail"] == error["errors"] != ""
    assert enqueued() == before


NOT_STORABLE = (b"\xff", b'{"prompt": "\\ud800"}')


@pytest.mark.parametrize("body", [b"[", b"[]", b"1", b'"a"', *NOT_STORABLE])
def test_non_object_bodies_are_refused(http: httpx.Client, enqueued: Callable[[], int], body: bytes) -> None:
    before = enqueued()
    for path in ("txt2img", "img2img", "options", "png-info"):
        answer = http.post(f"{API}/{path}", content=body)
        assert answer.status_code == (422 if body in NOT_STORABLE else 400)
        assert answer.json()["error"] == "HTTPException"
    assert http.get(f"{API}/progress", params={"skip_current_image": "perhaps"}).status_code == 400
    assert enqueued() == before


# While it runs


class BackgroundRequest:
    """A request in a thread of its own."""

    def __init__(self, server: Server, **body: Any) -> None:
        self.answer: httpx.Response | None = None
        self.server = server
        self.thread = threading.Thread(target=self._ask, args=(body,))
        self.thread.start()

    def _ask(self, body: dict[str, Any]) -> None:
        self.answer = httpx.post(f"{self.server.url}{API}/txt2img", json=body, timeout=PATIENCE)

    def wait_for_answer(self) -> httpx.Response:
        self.thread.join(PATIENCE)
        assert self.answer is not None
        return self.answer

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first progress that is so."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            progress = httpx.get(f"{self.server.url}{API}/progress").json()
            if condition(progress):
                return dict(progress)
            assert self.thread.is_alive(), "it ended before"
            time.sleep(0.02)
        raise AssertionError("waited in vain")


def runs(progress: dict[str, Any]) -> bool:
    return bool(progress["state"]["sampling_step"] and progress["current_image"])


def statuses(http: httpx.Client, count: int) -> list[str]:
    """Return the statuses of the newest items."""
    items = http.get("/api/v1/queue/default/list_all").json()
    return [item["status"] for item in sorted(items, key=lambda item: item["item_id"])[-count:]]


def test_progress_and_interrupt(http: httpx.Client, server: Server) -> None:
    """What is done when the interrupt comes is answered; the rest is canceled."""
    asking = BackgroundRequest(server, **LONG | {"steps": 100, "n_iter": 4}, force_task_id="task(7)")
    first = asking.wait_for(runs)
    assert 0 < first["progress"] < 1
    assert first["eta_relative"] > 0
    assert (first["state"]["job_count"], first["state"]["sampling_steps"], first["current_task"]) == (4, 100, "task(7)")
    assert first["state"]["job"].endswith("out of 4")
    assert from_base64(first["current_image"]).size
    assert http.get(f"{API}/progress", params={"skip_current_image": True}).json()["current_image"] is None
    asking.wait_for(lambda progress: progress["state"]["job_no"] >= 1 and runs(progress))
    assert http.post(f"{API}/interrupt").status_code == 200
    answer = asking.wait_for_answer()
    assert answer.status_code == 200, answer.text
    image_count = len(answer.json()["images"])
    info = json.loads(answer.json()["info"])
    assert 1 <= image_count < 4
    assert len(info["infotexts"]) == image_count
    assert info["all_seeds"] == [3, 4, 5, 6][:image_count]
    assert statuses(http, 4) == ["completed"] * image_count + ["canceled"] * (4 - image_count)
    assert http.get(f"{API}/progress").json()["state"]["job_count"] == 0


def test_interrupt_before_the_first_result(http: httpx.Client, server: Server) -> None:
    asking = BackgroundRequest(server, **LONG | {"steps": 900})
    asking.wait_for(runs)
    http.post(f"{API}/interrupt").raise_for_status()
    answer = asking.wait_for_answer()
    assert (answer.status_code, answer.json()["images"]) == (200, [])
    assert json.loads(answer.json()["info"])["seed"] == 3
    assert statuses(http, 1) == ["canceled"]


def test_skip_omits_the_current_image(http: httpx.Client, server: Server) -> None:
    asking = BackgroundRequest(server, **LONG | {"width": 64, "height": 64, "n_iter": 2})
    asking.wait_for(runs)
    http.post(f"{API}/skip").raise_for_status()
    answer = asking.wait_for_answer()
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1
    assert json.loads(answer.json()["info"])["all_seeds"] == [4]
    assert statuses(http, 2) == ["canceled", "completed"]


def test_cancellation_by_another_client_is_an_error(http: httpx.Client, server: Server) -> None:
    asking = BackgroundRequest(server, **LONG | {"steps": 900})
    asking.wait_for(runs)
    current = http.get("/api/v1/queue/default/current").json()
    http.put(f"/api/v1/queue/default/i/{current['item_id']}/cancel").raise_for_status()
    answer = asking.wait_for_answer()
    assert answer.status_code == 409
    assert answer.json()["detail"] == "the generation was canceled"


def test_client_disconnect_cancels_its_items(http: httpx.Client, server: Server) -> None:
    wire = http_client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    wire.request("POST", f"{API}/txt2img", json.dumps(LONG | {"steps": 900, "n_iter": 2}))
    server.wait_for(lambda: runs(http.get(f"{API}/progress").json()), "the run")
    assert statuses(http, 2) == ["in_progress", "pending"]
    wire.close()
    server.wait_for(lambda: statuses(http, 2) == ["canceled"] * 2, "the items to be canceled")
    assert http.get(f"{API}/progress").json()["state"]["job_count"] == 0


# Who may


GET = ("options", "sd-models", "sd-vae", "sd-modules", "samplers", "schedulers", "upscalers", "latent-upscale-modes")
GET += ("loras", "embeddings", "progress", "hypernetworks", "face-restorers", "prompt-styles", "scripts", "script-info")
GET += ("realesrgan-models", "memory", "cmd-flags")
POST = ("txt2img", "img2img", "extra-single-image", "extra-batch-images", "png-info", "options", "interrupt", "skip")
POST += ("refresh-checkpoints", "refresh-vae", "refresh-loras", "unload-checkpoint", "reload-checkpoint")


def key_of(server: Server, email: str) -> str:
    command = [sys.executable, "-m", "invokeclone", "user", "key", "add", "test", "--email", email]
    process = subprocess.run([*command, "--root", str(server.root)], capture_output=True, text=True, check=True)
    return process.stdout.strip()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server for two users."""
    running = Server(tmp_path_factory.mktemp("several") / "root").start(INVOKEAI_MULTIUSER="true")
    yield running
    running.client.close()
    running.stop()


def test_with_several_users_a_key_is_needed(shared: Server) -> None:
    """Every route asks for one, as the password; options and progress are each user's own."""
    client = shared.client
    admin = {"email": "a@example.com", "display_name": "A", "password": "Right-Passw0rd"}
    client.post("/api/v1/auth/setup", json=admin).raise_for_status()
    token = client.post("/api/v1/auth/login", json=admin).json()["token"]
    client.post(
        "/api/v1/auth/users",
        json={"email": "b@example.com", "password": "Right-Passw0rd"},
        headers={"Authorization": f"Bearer {token}"},
    ).raise_for_status()
    for method, paths in (("GET", GET), ("POST", POST)):
        for path in paths:
            for headers in ({}, {"Authorization": "Basic"}, {"Authorization": "Basic dXNlcjpub3BlCg=="}):
                answer = client.request(method, f"{API}/{path}", headers=headers)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Basic")
                assert answer.json()["error"] == "HTTPException"
    controlnet = [f"/controlnet/{path}" for path in ("model_list", "module_list", "version")]
    assert {client.get(path).status_code for path in controlnet} == {401}
    first = httpx.Client(base_url=shared.url, auth=("anything", key_of(shared, "a@example.com")), timeout=PATIENCE)
    second = httpx.Client(base_url=shared.url, auth=("", key_of(shared, "b@example.com")), timeout=PATIENCE)
    with first, second:
        for path in GET:
            assert first.get(f"{API}/{path}").status_code == 200, path
        assert {first.get(path).status_code for path in controlnet} == {200}
        first.post(f"{API}/options", json={"samples_format": "webp"}).raise_for_status()
        assert second.get(f"{API}/options").json()["samples_format"] == "png"
        (image,), _ = txt2img(second, **QUICK)
        assert image.size == (64, 64)
        answers: list[httpx.Response] = []
        thread = threading.Thread(
            target=lambda: answers.append(first.post(f"{API}/txt2img", json=LONG | {"steps": 900}))
        )
        thread.start()
        shared.wait_for(lambda: first.get(f"{API}/progress").json()["state"]["job_count"] == 1, "the first user's run")
        assert second.get(f"{API}/progress").json()["state"]["job_count"] == 0
        second.post(f"{API}/interrupt").raise_for_status()
        assert first.get(f"{API}/progress").json()["state"]["interrupted"] is False
        first.post(f"{API}/interrupt").raise_for_status()
        thread.join(PATIENCE)
        assert (answers[0].status_code, answers[0].json()["images"]) == (200, [])
