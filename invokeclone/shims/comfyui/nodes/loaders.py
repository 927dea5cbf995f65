"""Nodes that name models."""

from invokeclone.models.configs import ModelConfig
from invokeclone.queue.generation import identifier
from invokeclone.shims.comfyui.values import Clip, Model
from invokeclone.shims.comfyui.vocabulary import Lead, Place, choice, listed, node


def _found(place: Place, names: str, name: str) -> ModelConfig:
    found = place.catalog.model(names, name)
    return found or place.refuse(f"there is no model {name!r}")


def _main(place: Place, name: str) -> tuple[Model, Clip, Lead]:
    config = _found(place, "checkpoints", name)
    loader = place.add("loader", "main_model_loader", model=dict(identifier(config)))
    vae, clip = Lead(f"{loader}.vae"), Lead(f"{loader}.clip")
    return Model(Lead(f"{loader}.unet"), vae, config), Clip(clip, clip), vae


@node(
    "CheckpointLoaderSimple",
    "Load Checkpoint",
    "loaders",
    {"ckpt_name": listed("checkpoints")},
    "MODEL",
    "CLIP",
    "VAE",
)
def load_checkpoint(place: Place, *, ckpt_name: str) -> tuple[Model, Clip, Lead]:
    """Load a main model: what denoises, its text encoder and its VAE."""
    return _main(place, ckpt_name)


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
def load_unet(place: Place, *, unet_name: str, weight_dtype: str) -> tuple[Model]:  # noqa: ARG001  (the settings say it)
    """Load what denoises, of a main model. Its precision is as the settings say."""
    return (_main(place, unet_name)[0],)


@node(
    "CLIPLoader",
    "Load CLIP",
    "advanced/loaders",
    {"clip_name": listed("checkpoints"), "type": choice("stable_diffusion")},
    "CLIP",
)
def load_clip(place: Place, *, clip_name: str, type: str) -> tuple[Clip]:  # noqa: A002, ARG001  (ComfyUI's word; there is one)
    """Load the text encoder of a main model."""
    return (_main(place, clip_name)[1],)


@node("VAELoader", "Load VAE", "loaders", {"vae_name": listed("vae")}, "VAE")
def load_vae(place: Place, *, vae_name: str) -> tuple[Lead]:
    """Load a VAE, or that of a main model."""
    config = _found(place, "vae", vae_name)
    if config.type == "main":
        return (_main(place, vae_name)[2],)
    loader = place.add("vae", "vae_loader", vae_model=dict(identifier(config)))
    return (Lead(f"{loader}.vae"),)
