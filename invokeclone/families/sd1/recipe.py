"""From a prompt, or a prompt and a picture, to a graph for Stable Diffusion 1 and 2, as InvokeAI's own page would draw it."""

import re
from typing import Any

from invokeclone.graph.recipes import (
    OUTPUT,
    PROMPT,
    SEED,
    VARIATION,
    CannotBeDrawn,
    Drawing,
    Keep,
    Picture,
    PromptLanguage,
    Start,
    Usual,
    recipe,
)
from invokeclone.graph.taxonomy import BaseModelType

RESIZED = "resize"
_MEANT = re.compile(r'([()"])')
_WEIGHTS = re.compile(r"(?<=[^\s+-])([+-]{2,}|[+-](?=\s|$|[,.;:!?=)\\]))")
"""Plus and minus signs that would weigh the word before them: several, or one at its end."""


@recipe(BaseModelType.StableDiffusion1, usual=Usual(side=512))
@recipe(BaseModelType.StableDiffusion2, usual=Usual(side=768))
def draw(picture: Picture) -> dict[str, Any]:
    """Return the graph of a picture; raises CannotBeDrawn for a mask without a picture to begin with."""
    if picture.keep and not picture.start:
        raise CannotBeDrawn("a mask needs the picture that it is for")
    drawing = Drawing(f"sd1_{_mode(picture)}")
    _load(drawing, picture)
    _prompts(drawing, picture)
    noise = _noise(drawing, picture, "noise", picture.width, picture.height)
    settings = {
        "steps": picture.steps,
        "cfg_scale": picture.cfg_scale,
        "scheduler": picture.scheduler,
        "cfg_rescale_multiplier": picture.cfg_rescale,
    }
    latents = _denoise(drawing, "denoise_latents", noise, settings, 1.0)
    if picture.start:
        _start(drawing, picture)
    if picture.enlarge:
        latents = _enlarge(drawing, picture, settings, latents)
    _metadata(drawing, picture, settings)
    _result(drawing, picture, latents)
    return drawing.graph()


def _mode(picture: Picture) -> str:
    if picture.keep:
        return "inpaint"
    return "img2img" if picture.start else "txt2img"


# Models and prompts


def _load(drawing: Drawing, picture: Picture) -> None:
    """Load; whatever is put between the loader and its users keeps the ids `unet_source` and `vae_source`."""
    drawing.node("sd1_model_loader", "main_model_loader", model=dict(picture.model))
    drawing.node("clip_skip", "clip_skip", skipped_layers=picture.clip_skip)
    drawing.connect("sd1_model_loader.clip", "clip_skip.clip")
    if picture.vae is not None:
        drawing.node("vae_loader", "vae_loader", vae_model=dict(picture.vae))
    if picture.seamless:
        drawing.node("seamless", "seamless", seamless_x=True, seamless_y=True)
        drawing.connect("sd1_model_loader.unet", "seamless.unet")
        drawing.connect("vae_loader.vae" if picture.vae else "sd1_model_loader.vae", "seamless.vae")


def _unet(drawing: Drawing) -> str:
    return "seamless.unet" if "seamless" in drawing.nodes else "sd1_model_loader.unet"


def _vae(drawing: Drawing) -> str:
    if "seamless" in drawing.nodes:
        return "seamless.vae"
    return "vae_loader.vae" if "vae_loader" in drawing.nodes else "sd1_model_loader.vae"


def prompt_for_compel(prompt: str, language: PromptLanguage) -> str:
    """Return the prompt so that compel reads every character of a plain one as it stands; a native one is left alone."""
    if language == "native":
        return prompt
    return _WEIGHTS.sub(r" \1", _MEANT.sub(r"\\\1", prompt))


def _prompts(drawing: Drawing, picture: Picture) -> None:
    drawing.node(PROMPT, "string", value=prompt_for_compel(picture.prompt, picture.language))
    drawing.node("pos_cond", "compel")
    drawing.node("pos_cond_collect", "collect")
    drawing.node("neg_cond", "compel", prompt=prompt_for_compel(picture.negative_prompt, picture.language))
    drawing.node("neg_cond_collect", "collect")
    drawing.connect("clip_skip.clip", "pos_cond.clip", "neg_cond.clip")
    drawing.connect(f"{PROMPT}.value", "pos_cond.prompt")
    drawing.connect("pos_cond.conditioning", "pos_cond_collect.item")
    drawing.connect("neg_cond.conditioning", "neg_cond_collect.item")


# Latents


def _noise(drawing: Drawing, picture: Picture, name: str, width: int, height: int) -> str:
    """Draw noise, with the variation's blended in; returns where it comes out."""
    size = {"width": width, "height": height}
    if SEED not in drawing.nodes:
        drawing.node(SEED, "integer", value=picture.seed)
    drawing.node(name, "noise", use_cpu=True, **size)
    drawing.connect(f"{SEED}.value", f"{name}.seed")
    if picture.variation is None:
        return f"{name}.noise"
    if VARIATION not in drawing.nodes:
        drawing.node(VARIATION, "integer", value=picture.variation.seed)
    drawing.node(f"{name}_varied", "noise", use_cpu=True, **size)
    drawing.connect(f"{VARIATION}.value", f"{name}_varied.seed")
    blend = drawing.node(f"{name}_blend", "lblend", alpha=picture.variation.strength)
    drawing.connect(f"{name}.noise", f"{blend}.latents_a")
    drawing.connect(f"{name}_varied.noise", f"{blend}.latents_b")
    return f"{blend}.latents"


def _denoise(drawing: Drawing, name: str, noise: str, settings: dict[str, Any], strength: float) -> str:
    drawing.node(name, "denoise_latents", denoising_start=1.0 - strength, denoising_end=1.0, **settings)
    drawing.connect(_unet(drawing), f"{name}.unet")
    drawing.connect("pos_cond_collect.collection", f"{name}.positive_conditioning")
    drawing.connect("neg_cond_collect.collection", f"{name}.negative_conditioning")
    drawing.connect(noise, f"{name}.noise")
    return f"{name}.latents"


def _start(drawing: Drawing, picture: Picture) -> None:
    """Begin with a picture, and keep what a mask says."""
    start, keep = picture.start, picture.keep
    assert start is not None
    drawing.nodes["denoise_latents"]["denoising_start"] = round(1.0 - start.strength, 6)
    if start.resize:
        size = {"width": picture.width, "height": picture.height}
        drawing.node(RESIZED, "img_resize", image={"image_name": start.image}, resample_mode="lanczos", **size)
    drawing.node("i2l", "i2l", fp32=True)
    _give_start(drawing, start, "i2l", "image")
    drawing.connect(_vae(drawing), "i2l.vae")
    drawing.connect("i2l.latents", "denoise_latents.latents")
    if keep is None:
        return
    drawing.node("denoise_mask", "create_denoise_mask", mask={"image_name": keep.mask}, fp32=True)
    _give_start(drawing, start, "denoise_mask", "image")
    drawing.connect(_vae(drawing), "denoise_mask.vae")
    drawing.connect("denoise_mask.denoise_mask", "denoise_latents.denoise_mask")
    if keep.fill == "noise":
        drawing.nodes["denoise_latents"]["denoising_start"] = 0.0


def _give_start(drawing: Drawing, start: Start, node: str, field: str) -> None:
    """Hand the picture at the start to a node, resized where that is needed."""
    if start.resize:
        drawing.connect(f"{RESIZED}.image", f"{node}.{field}")
    else:
        drawing.nodes[node][field] = {"image_name": start.image}


def _enlarge(drawing: Drawing, picture: Picture, settings: dict[str, Any], latents: str) -> str:
    """Enlarge the first result and run over it once more; returns where the latents come out."""
    enlarge = picture.enlarge
    assert enlarge is not None
    size = {"width": enlarge.width, "height": enlarge.height}
    if enlarge.in_pixels:
        drawing.node("first_picture", "l2i", fp32=True)
        drawing.node("enlarge", "img_resize", resample_mode=enlarge.resample, **size)
        drawing.node("enlarged", "i2l", fp32=True)
        drawing.connect(latents, "first_picture.latents")
        drawing.connect(_vae(drawing), "first_picture.vae", "enlarged.vae")
        drawing.connect("first_picture.image", "enlarge.image")
        drawing.connect("enlarge.image", "enlarged.image")
    else:
        drawing.node("enlarged", "lresize", mode="bilinear", antialias=False, **size)
        drawing.connect(latents, "enlarged.latents")
    noise = _noise(drawing, picture, "second_noise", enlarge.width, enlarge.height)
    second = {**settings, "steps": enlarge.steps, "scheduler": enlarge.scheduler or picture.scheduler}
    result = _denoise(drawing, "second_denoise", noise, second, enlarge.strength)
    drawing.connect("enlarged.latents", "second_denoise.latents")
    return result


# The end


def _metadata(drawing: Drawing, picture: Picture, settings: dict[str, Any]) -> None:
    start = {"init_image": picture.start.image, "strength": picture.start.strength} if picture.start else {}
    vae = {"vae": dict(picture.vae)} if picture.vae else {}
    enlarged = picture.enlarge or picture
    drawing.node(
        "core_metadata",
        "core_metadata",
        generation_mode="inpaint" if picture.keep else _mode(picture),
        negative_prompt=drawing.nodes["neg_cond"]["prompt"],
        width=enlarged.width,
        height=enlarged.height,
        model=dict(picture.model),
        rand_device="cpu",
        clip_skip=picture.clip_skip,
        seamless_x=picture.seamless,
        seamless_y=picture.seamless,
        **settings,
        **start,
        **vae,
    )
    drawing.connect(f"{SEED}.value", "core_metadata.seed")
    drawing.connect(f"{PROMPT}.value", "core_metadata.positive_prompt")


def _result(drawing: Drawing, picture: Picture, latents: str) -> None:
    """Decode; where a mask keeps pixels, put those of the first picture back."""
    pastes = picture.keep is not None and picture.keep.paste and picture.enlarge is None
    decode = drawing.node("decode" if pastes else OUTPUT, "l2i", fp32=True)
    drawing.connect(latents, f"{decode}.latents")
    drawing.connect(_vae(drawing), f"{decode}.vae")
    if pastes:
        assert picture.keep is not None
        assert picture.start is not None
        _paste(drawing, picture.start, picture.keep)
    drawing.connect("core_metadata.metadata", f"{OUTPUT}.metadata")
    drawing.result(OUTPUT, picture.board_id)


def _paste(drawing: Drawing, start: Start, keep: Keep) -> None:
    mask = {"image_name": keep.mask}
    drawing.node(OUTPUT, "img_paste", mask=mask, crop=True)
    _give_start(drawing, start, OUTPUT, "base_image")
    drawing.connect("decode.image", f"{OUTPUT}.image")
    if keep.feather:
        del drawing.nodes[OUTPUT]["mask"]
        drawing.node("feather", "img_blur", image=mask, radius=float(keep.feather))
        drawing.connect("feather.image", f"{OUTPUT}.mask")
