"""Nodes that load models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.recipes import AppliedLoRA, merge_loras
from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import identifier, recipe_for, vae_base_of
from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, choice, link, list_choice, node, number
from invokeclone.shims.comfyui.values import Clip, Model, Vae

GGUF = "bootleg"
"""The category of the nodes of the GGUF pack, which load files of any format."""
STRENGTH = number(1.0, -100.0, 100.0)
CLIP_NAME = list_choice("text_encoders")
CLIP_TYPE = choice(
    "stable_diffusion", "sdxl", "sd3", "flux", "cogview4", "lumina2", "flux2", "qwen_image", open_list=True
)
"""ComfyUI's types of text encoders; the main model determines how they are used."""
CLIP_DEVICE = replace(choice("default", "cpu"), optional=True)
CLIP_STRENGTH = replace(STRENGTH, from_model=True)
"""A null means the strength of the denoiser."""


def _load_main_model(context: BuildContext, name: str) -> Model:
    return _load_parts(context, context.find("checkpoints", name), {})


def _load_parts(context: BuildContext, config: ModelConfig, parts: Mapping[str, Mapping[str, Any]]) -> Model:
    """Load a main model, some parts of which may be separate models."""
    recipe = recipe_for(config)
    return Model(recipe.load_model(context.builder, identifier(config), parts), config, recipe)


def _load_encoders(context: BuildContext, *names: str) -> Clip:
    """Load separate text encoders, or those of a main model, which then all names must be.

    Text encoders that are not named are those that the main model has, or else installed ones.
    """
    configs = [context.find("text_encoders", name) for name in names]
    if any(config.type == ModelType.Main for config in configs):
        if len({config.key for config in configs}) > 1:
            all_of_them = "both" if len(configs) == 2 else "all"  # noqa: PLR2004
            context.refuse(f"{all_of_them} text encoders must be those of one main model")
        return Clip(_load_parts(context, configs[0], {}))
    if context.main_model is None:
        context.refuse("the text encoders must encode prompts for a model that a node loads by its name")
    main = context.find("checkpoints", context.main_model)
    parts: dict[str, Mapping[str, Any]] = {}
    for config in configs:
        part = _part_name(main, config)
        if part is None or part in parts:
            context.refuse(_unusable(main, config))
        parts[part] = identifier(config)
    return Clip(_load_parts(context, main, {**_parts_of_workflow(context, main), **parts}))


def _unusable(main: ModelConfig, config: ModelConfig) -> str:
    """Return why a main model cannot use a separate text encoder: of the wrong kind, or beside others."""
    if _part_name(main, config) is not None:
        return f"{main.name} ({main.base}) cannot use {config.name} ({config.type}) beside the others"
    kinds = [kind for kind in recipe_for(main).separate_parts.values() if kind.type != ModelType.VAE]
    names = ", ".join(f"{kind.type} {kind.variant or ''}".strip() for kind in kinds)
    variant = getattr(config, "variant", None) or ""
    name = f"{config.name} ({config.type}{f' {variant}' if variant else ''})"
    return f"{main.name} ({main.base}) cannot use {name}; it takes " + (names or "only its own text encoders")


def _part_name(main: ModelConfig, config: ModelConfig) -> str | None:
    """Return the name of the part of a main model that a separate model can replace; None if there is none."""
    variant = getattr(config, "variant", None)
    bases = (vae_base_of(main),) if config.type == ModelType.VAE else ("any", str(config.base))
    kinds = recipe_for(main).separate_parts.items()
    return next(
        (
            name
            for name, kind in kinds
            if kind.type == config.type and kind.variant in (None, variant) and str(config.base) in bases
        ),
        None,
    )


def _parts_of_workflow(context: BuildContext, main: ModelConfig) -> dict[str, Mapping[str, Any]]:
    """Return the separate models of the workflow that are parts of a main model, the first of each kind.

    ComfyUI's nodes load them apart from each other; here the main model's loader needs all of them.
    """
    parts: dict[str, Mapping[str, Any]] = {}
    for list_name, name in context.separate_models:
        config = context.catalog.model(list_name, name)
        part = None if config is None or config.type == ModelType.Main else _part_name(main, config)
        if config is not None and part is not None:
            parts.setdefault(part, identifier(config))
    return parts


def _vae_of(model: Model) -> Vae:
    return Vae(model.parts.vae, model.recipe, model.config)


@node(
    "CheckpointLoaderSimple",
    "Load Checkpoint",
    "loaders",
    {"ckpt_name": list_choice("checkpoints")},
    "MODEL",
    "CLIP",
    "VAE",
)
def load_checkpoint(context: BuildContext, *, ckpt_name: str) -> tuple[Model, Clip, Vae]:
    """Load a main model: its denoiser, text encoders and VAE."""
    model = _load_main_model(context, ckpt_name)
    return model, Clip(model), _vae_of(model)


@node("UnetLoaderGGUF", "Unet Loader (GGUF)", GGUF, {"unet_name": list_choice("checkpoints")}, "MODEL")
@node(
    "UnetLoaderGGUFAdvanced",
    "Unet Loader (GGUF/Advanced)",
    GGUF,
    {
        "unet_name": list_choice("checkpoints"),
        "dequant_dtype": choice("default", open_list=True),
        "patch_dtype": choice("default", open_list=True),
        "patch_on_device": NodeInput("BOOLEAN", default=False),
    },
    "MODEL",
)
@node(
    "UNETLoader",
    "Load Diffusion Model",
    "advanced/loaders",
    {
        "unet_name": list_choice("checkpoints"),
        "weight_dtype": choice("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"),
    },
    "MODEL",
)
def load_unet(context: BuildContext, *, unet_name: str, **_precision: object) -> tuple[Model]:
    """Load the denoiser of a main model. The server's settings determine its precision."""
    config = context.find("checkpoints", unet_name)
    return (_load_parts(context, config, _parts_of_workflow(context, config)),)


@node("CLIPLoaderGGUF", "CLIPLoader (GGUF)", GGUF, {"clip_name": CLIP_NAME, "type": CLIP_TYPE}, "CLIP")
@node(
    "CLIPLoader",
    "Load CLIP",
    "advanced/loaders",
    {"clip_name": CLIP_NAME, "type": CLIP_TYPE, "device": CLIP_DEVICE},
    "CLIP",
)
def load_clip(context: BuildContext, *, clip_name: str, type: str, device: str | None = None) -> tuple[Clip]:  # noqa: A002, ARG001  (ComfyUI's names; the model and the server determine them)
    """Load a text encoder, or the text encoders of a main model."""
    return (_load_encoders(context, clip_name),)


@node(
    "DualCLIPLoaderGGUF",
    "DualCLIPLoader (GGUF)",
    GGUF,
    {"clip_name1": CLIP_NAME, "clip_name2": CLIP_NAME, "type": CLIP_TYPE},
    "CLIP",
)
@node(
    "DualCLIPLoader",
    "DualCLIPLoader",
    "advanced/loaders",
    {"clip_name1": CLIP_NAME, "clip_name2": CLIP_NAME, "type": CLIP_TYPE, "device": CLIP_DEVICE},
    "CLIP",
)
def load_two_encoders(
    context: BuildContext,
    *,
    clip_name1: str,
    clip_name2: str,
    type: str,  # noqa: A002, ARG001  (as above)
    device: str | None = None,  # noqa: ARG001
) -> tuple[Clip]:
    """Load two text encoders, or all of a main model, which both names then must be."""
    return (_load_encoders(context, clip_name1, clip_name2),)


@node(
    "TripleCLIPLoaderGGUF",
    "TripleCLIPLoader (GGUF)",
    GGUF,
    {"clip_name1": CLIP_NAME, "clip_name2": CLIP_NAME, "clip_name3": CLIP_NAME},
    "CLIP",
)
@node(
    "TripleCLIPLoader",
    "TripleCLIPLoader",
    "advanced/loaders",
    {"clip_name1": CLIP_NAME, "clip_name2": CLIP_NAME, "clip_name3": CLIP_NAME},
    "CLIP",
)
def load_three_encoders(context: BuildContext, *, clip_name1: str, clip_name2: str, clip_name3: str) -> tuple[Clip]:
    """Load three text encoders, or all of a main model, which all names then must be."""
    return (_load_encoders(context, clip_name1, clip_name2, clip_name3),)


@node(
    "LoraLoader",
    "Load LoRA",
    "loaders",
    {
        "model": link("MODEL"),
        "clip": link("CLIP"),
        "lora_name": list_choice("loras"),
        "strength_model": STRENGTH,
        "strength_clip": CLIP_STRENGTH,
    },
    "MODEL",
    "CLIP",
)
def load_lora(
    context: BuildContext,
    *,
    model: Model,
    clip: Clip,
    lora_name: str,
    strength_model: float,
    strength_clip: float | None,
) -> tuple[Model, Clip]:
    """Apply a LoRA to the denoiser and the text encoders. Weights of the same LoRA are added up."""
    if (controlled := _with_control_lora(context, model, lora_name, strength_model)) is not None:
        return controlled, clip
    lora = _lora_identifier(context, model, lora_name)
    text_strength = strength_model if strength_clip is None else strength_clip
    encoding = clip.model
    of_model, of_text = [*model.loras], [*encoding.loras]
    denoisers = merge_loras([*of_model, AppliedLoRA(lora, strength_model)])
    encoders = merge_loras([*of_text, AppliedLoRA(lora, text_strength)])
    if (len(denoisers), len(encoders)) == (len(of_model) + 1, len(of_text) + 1):
        base_parts = replace(model.parts, text_encoders=encoding.parts.text_encoders)
        applied = [AppliedLoRA(lora, strength_model, text_strength)]
    else:
        base_parts = replace(model.bare_parts, text_encoders=encoding.bare_parts.text_encoders)
        applied = _combine_loras(denoisers, encoders)
    parts = model.recipe.apply_loras(context.builder, "lora", base_parts, applied)
    patched = replace(encoding.parts, text_encoders=parts.text_encoders)
    return (
        _with_denoiser(model, parts.denoiser, denoisers),
        Clip(replace(encoding, parts=patched, bare=encoding.bare_parts, loras=tuple(encoders))).with_skipped_layers(
            context, clip.skipped
        ),
    )


def _combine_loras(denoisers: Sequence[AppliedLoRA], encoders: Sequence[AppliedLoRA]) -> list[AppliedLoRA]:
    """Return the LoRAs of both sides, each with its weights on the denoiser and on the text encoders."""
    sides = [{lora.model["key"]: lora.weight for lora in side} for side in (denoisers, encoders)]
    models = {lora.model["key"]: lora.model for lora in (*denoisers, *encoders)}
    return [AppliedLoRA(model, sides[0].get(key, 0.0), sides[1].get(key, 0.0)) for key, model in models.items()]


def _with_denoiser(model: Model, denoiser: NodeOutput, loras: Sequence[AppliedLoRA]) -> Model:
    parts = replace(model.parts, denoiser=denoiser)
    return replace(model, parts=parts, bare=model.bare_parts, loras=tuple(loras))


@node(
    "LoraLoaderModelOnly",
    "LoraLoaderModelOnly",
    "loaders",
    {"model": link("MODEL"), "lora_name": list_choice("loras"), "strength_model": STRENGTH},
    "MODEL",
)
def load_lora_model_only(context: BuildContext, *, model: Model, lora_name: str, strength_model: float) -> tuple[Model]:
    """Apply a LoRA to the denoiser. Weights of the same LoRA are added up."""
    if (controlled := _with_control_lora(context, model, lora_name, strength_model)) is not None:
        return (controlled,)
    lora = AppliedLoRA(_lora_identifier(context, model, lora_name), strength_model)
    merged = merge_loras([*model.loras, lora])
    is_new = len(merged) > len(model.loras)
    parts = replace(model.parts if is_new else model.bare_parts, text_encoders={})
    parts = model.recipe.apply_loras(context.builder, "lora", parts, [lora] if is_new else merged)
    return (_with_denoiser(model, parts.denoiser, merged),)


def _with_control_lora(context: BuildContext, model: Model, name: str, strength: float) -> Model | None:
    """Return the model with a control LoRA; None for other LoRAs. Its image comes with the prompts."""
    if context.find("loras", name).type != ModelType.ControlLoRa:
        return None
    if model.control_lora is not None:
        context.refuse("only one control LoRA at a time is supported")
    return replace(model, control_lora=AppliedLoRA(_lora_identifier(context, model, name), strength))


def _lora_identifier(context: BuildContext, model: Model, name: str) -> Mapping[str, Any]:
    """Return the identifier of a LoRA; refuses one for another base than the model's."""
    context.require(model.config, "lora")
    config = context.find("loras", name)
    if config.base != model.config.base:
        context.refuse(
            f"the LoRA {config.name} is for {config.base} models, {model.config.name} is {model.config.base}"
        )
    return identifier(config)


@node("VAELoader", "Load VAE", "loaders", {"vae_name": list_choice("vae")}, "VAE")
def load_vae(context: BuildContext, *, vae_name: str) -> tuple[Vae]:
    """Load a VAE, or the VAE of a main model."""
    config = context.find("vae", vae_name)
    if config.type == ModelType.Main:
        return (_vae_of(_load_main_model(context, vae_name)),)
    loader = context.output("vae", "vae_loader", "vae", vae_model=dict(identifier(config)))
    return (Vae(loader, recipe_for(config), config),)
