"""Nodes that name models."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from invokeclone.graph.recipes import AppliedLoRA
from invokeclone.models.configs import ModelConfig
from invokeclone.queue.generation import identifier, recipe_for
from invokeclone.shims.comfyui.values import Clip, Model, Vae
from invokeclone.shims.comfyui.vocabulary import Place, choice, link, listed, node, number

STRENGTH = number(1.0, -100.0, 100.0)


def _named(place: Place, names: str, name: str) -> ModelConfig:
    return place.catalog.model(names, name) or place.refuse(f"there is no model {name!r}")


def _main(place: Place, name: str) -> Model:
    config = _named(place, "checkpoints", name)
    recipe = recipe_for(config)
    return Model(recipe.load_model(place.builder, identifier(config)), config, recipe)


def _vae_of(model: Model) -> Vae:
    return Vae(model.parts.vae, model.recipe)


@node(
    "CheckpointLoaderSimple",
    "Load Checkpoint",
    "loaders",
    {"ckpt_name": listed("checkpoints")},
    "MODEL",
    "CLIP",
    "VAE",
)
def load_checkpoint(place: Place, *, ckpt_name: str) -> tuple[Model, Clip, Vae]:
    """Load a main model: what denoises, its text encoders and its VAE."""
    model = _main(place, ckpt_name)
    return model, Clip(model), _vae_of(model)


@node(
    "UNETLoader",
    "Load Diffusion Model",
    "advanced/loaders",
    {
        "unet_name": listed("checkpoints"),
        "weight_dtype": choice("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"),
    },
    "MODEL",
)
def load_unet(place: Place, *, unet_name: str, weight_dtype: str) -> tuple[Model]:  # noqa: ARG001  (the settings state it)
    """Load what denoises, of a main model. Its precision is as the settings state."""
    return (_main(place, unet_name),)


@node(
    "CLIPLoader",
    "Load CLIP",
    "advanced/loaders",
    {"clip_name": listed("checkpoints"), "type": choice("stable_diffusion")},
    "CLIP",
)
def load_clip(place: Place, *, clip_name: str, type: str) -> tuple[Clip]:  # noqa: A002, ARG001  (ComfyUI's name; the model decides)
    """Load the text encoders of a main model."""
    return (Clip(_main(place, clip_name)),)


@node(
    "LoraLoader",
    "Load LoRA",
    "loaders",
    {
        "model": link("MODEL"),
        "clip": link("CLIP"),
        "lora_name": listed("loras"),
        "strength_model": STRENGTH,
        "strength_clip": STRENGTH,
    },
    "MODEL",
    "CLIP",
)
def load_lora(
    place: Place, *, model: Model, clip: Clip, lora_name: str, strength_model: float, strength_clip: float
) -> tuple[Model, Clip]:
    """Apply a LoRA to what denoises and to the text encoders."""
    lora = _lora(place, model, lora_name)
    together = replace(model.parts, text_encoders=clip.model.parts.text_encoders)
    applied = AppliedLoRA(lora, strength_model, strength_clip)
    parts = model.recipe.apply_loras(place.builder, "lora", together, [applied])
    encoders = replace(clip.model.parts, text_encoders=parts.text_encoders)
    return (
        replace(model, parts=replace(model.parts, denoiser=parts.denoiser)),
        Clip(replace(clip.model, parts=encoders)).skipping(place, clip.skipped),
    )


@node(
    "LoraLoaderModelOnly",
    "LoraLoaderModelOnly",
    "loaders",
    {"model": link("MODEL"), "lora_name": listed("loras"), "strength_model": STRENGTH},
    "MODEL",
)
def load_lora_model_only(place: Place, *, model: Model, lora_name: str, strength_model: float) -> tuple[Model]:
    """Apply a LoRA to what denoises."""
    lora = AppliedLoRA(_lora(place, model, lora_name), strength_model)
    parts = model.recipe.apply_loras(place.builder, "lora", replace(model.parts, text_encoders={}), [lora])
    return (replace(model, parts=replace(model.parts, denoiser=parts.denoiser)),)


def _lora(place: Place, model: Model, name: str) -> Mapping[str, Any]:
    """Return what names a LoRA in a graph; refuses one that does not fit the model."""
    place.require(model.config, "lora")
    config = _named(place, "loras", name)
    if config.base != model.config.base:
        place.refuse(f"the LoRA {config.name} is for {config.base} models, {model.config.name} is {model.config.base}")
    return identifier(config)


@node("VAELoader", "Load VAE", "loaders", {"vae_name": listed("vae")}, "VAE")
def load_vae(place: Place, *, vae_name: str) -> tuple[Vae]:
    """Load a VAE, or that of a main model."""
    config = _named(place, "vae", vae_name)
    if config.type == "main":
        return (_vae_of(_main(place, vae_name)),)
    loader = place.output("vae", "vae_loader", "vae", vae_model=dict(identifier(config)))
    return (Vae(loader, recipe_for(config)),)
