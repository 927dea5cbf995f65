"""The package `webuiapi` against the real server, through AUTOMATIC1111's API."""

from typing import Any

import pytest
from PIL import Image

from tests.server_process import Server
from tests.shims.conftest import circle_image

webuiapi = pytest.importorskip("webuiapi")
SMALL = {"prompt": "a cat", "steps": 4, "width": 64, "height": 64, "seed": 3}


@pytest.fixture(scope="module")
def api(server: Server) -> Any:
    client = webuiapi.WebUIApi(host="127.0.0.1", port=server.port)
    yield client
    client.session.close()


def test_every_list_and_state(api: Any) -> None:
    assert f":{api.get_cmd_flags()['port']}/" in api.baseurl
    assert set(api.get_memory()) == {"ram", "cuda"}
    assert api.util_get_model_names() == [api.util_get_current_model()]
    names = api.util_get_sampler_names()
    assert "Euler a" in names
    assert api.util_get_scheduler_names() == ["automatic", "karras", "uniform"]
    assert "controlnet" in api.get_scripts()["txt2img"]
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    for method in ("hypernetworks", "face_restorers", "realesrgan_models", "prompt_styles", "loras", "sd_vae"):
        assert getattr(api, f"get_{method}")() == []
    modes = {entry["name"] for entry in api.get_latent_upscale_modes()}
    latent = {mode.value for mode in webuiapi.HiResUpscaler if mode.value.startswith("Latent")}
    assert latent <= modes
    api.refresh_checkpoints()
    api.util_wait_for_ready()
    api.util_set_model("embedded")
    assert api.get_progress()["progress"] == 0.0
    assert api.controlnet_version() == 2
    assert "canny" in api.controlnet_module_list()
    assert api.controlnet_model_list() == []


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2S a", "DPM++ 3M SDE", "Restart", "DPM fast", "DPM adaptive"])
def test_samplers(api: Any, sampler: str) -> None:
    made = api.txt2img(**SMALL, sampler_name=sampler)
    assert made.image.size == (64, 64)
    replaced = made.info["extra_generation_params"].get("Requested sampler")
    assert replaced == (None if sampler == "Euler a" else sampler)


def test_latent_upscalers(api: Any) -> None:
    made = api.txt2img(
        **SMALL, enable_hr=True, hr_scale=2, hr_upscaler=webuiapi.HiResUpscaler.LatentBicubic, denoising_strength=0.5
    )
    assert made.image.size == (128, 128)
    assert "Hires upscaler: Latent (bicubic)" in made.info["infotexts"][0]
    with pytest.raises(RuntimeError, match=r"SwinIR 4x.*; there are: Latent, .*Lanczos, Nearest"):
        api.txt2img(**SMALL, enable_hr=True, hr_upscaler=webuiapi.HiResUpscaler.SwinIR_4x)


def test_image_to_image_and_extras(api: Any) -> None:
    image = circle_image(64)
    mask = Image.new("L", image.size, 255)
    assert api.img2img(**SMALL, images=[image], mask_image=mask, cfg_scale=3).image.size == (64, 64)
    assert api.extra_single_image(image=image, upscaler_1="Lanczos", upscaling_resize=2).image.size == (128, 128)
    both = api.extra_batch_images(images=[image, image], name_list=["a", "b"], upscaler_1="Nearest", upscaling_resize=2)
    assert [one.size for one in both.images] == [(128, 128)] * 2
    made = api.txt2img(**SMALL)
    assert api.png_info(made.image).info == made.info["infotexts"][0]


def test_errors_name_what_is_wrong(api: Any) -> None:
    for call, text in (
        (lambda: api.interrogate(circle_image(64)), "does not have POST /sdapi/v1/interrogate"),
        (lambda: api.txt2img(**SMALL, sampler_name="nobody"), "There are: DPM"),
        (lambda: api.txt2img(**SMALL, restore_faces=True), "face restoration is not supported"),
        (lambda: api.txt2img(**SMALL, styles=["x"]), "unknown style"),
        (lambda: api.txt2img(**SMALL | {"steps": 0}), "steps"),
        (lambda: api.txt2img(**SMALL, batch_size=99), "limits.request_images"),
    ):
        with pytest.raises(RuntimeError, match=text):
            call()
