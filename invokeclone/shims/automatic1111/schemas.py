"""Request bodies. Names and defaults are A1111's; unknown names are ignored, and null counts as left out.

Size, steps, CFG scale and sampler default to the model's settings.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

UnitFloat = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=0, le=100_000)]


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Generate(Body):
    """Fields of `txt2img` and `img2img`."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[str] = []
    seed: int = -1
    subseed: int = -1
    subseed_strength: UnitFloat = 0.0
    seed_resize_from_w: int = -1
    seed_resize_from_h: int = -1
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: int = Field(default=1, ge=1)
    n_iter: int = Field(default=1, ge=1)
    steps: int | None = None
    cfg_scale: float | None = None
    distilled_cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    restore_faces: bool = False
    tiling: bool = False
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    denoising_strength: UnitFloat | None = None
    s_min_uncond: float = 0.0
    s_churn: float = 0.0
    s_tmax: float | None = None
    s_tmin: float = 0.0
    s_noise: float = 1.0
    override_settings: dict[str, Any] = {}
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: UnitFloat | None = None
    script_name: str | None = None
    alwayson_scripts: dict[str, Any] = {}
    send_images: bool = True
    save_images: bool = False
    infotext: str | None = None
    force_task_id: str | None = None


class TextToImage(Generate):
    """Body of `txt2img`."""

    enable_hr: bool = False
    firstphase_width: Side = 0
    firstphase_height: Side = 0
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = Field(default=0, ge=0, le=1000)
    hr_resize_x: Side = 0
    hr_resize_y: Side = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""


class ImageToImage(Generate):
    """Body of `img2img`."""

    init_images: list[str] = []
    resize_mode: int = Field(default=0, ge=0, le=3)
    mask: str | None = None
    latent_mask: str | None = None
    mask_blur: int | None = Field(default=None, ge=0, le=256)
    mask_blur_x: int = Field(default=4, ge=0, le=256)
    mask_blur_y: int = Field(default=4, ge=0, le=256)
    mask_round: bool = True
    inpainting_fill: int = Field(default=0, ge=0, le=3)
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = Field(default=0, ge=0, le=8192)
    inpainting_mask_invert: bool = False
    include_init_images: bool = False


class Upscale(Body):
    """Fields of `extra-single-image` and `extra-batch-images`."""

    resize_mode: int = Field(default=0, ge=0, le=1)
    gfpgan_visibility: UnitFloat = 0.0
    codeformer_visibility: UnitFloat = 0.0
    upscaling_resize: float = Field(default=2.0, gt=0, le=16)
    upscaling_resize_w: int = Field(default=512, ge=1, le=100_000)
    upscaling_resize_h: int = Field(default=512, ge=1, le=100_000)
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: UnitFloat = 0.0


class UpscaleImage(Upscale):
    """Body of `extra-single-image`."""

    image: str


class NamedImage(Body):
    """An image of `extra-batch-images`."""

    data: str
    name: str = ""


class UpscaleImages(Upscale):
    """Body of `extra-batch-images`."""

    image_list: list[NamedImage] = Field(alias="imageList", min_length=1)


class ReadInfo(Body):
    """Body of `png-info`."""

    image: str
