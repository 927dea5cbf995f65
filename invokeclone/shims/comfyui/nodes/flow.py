"""Nodes for models of transformers with flow matching: guidance, shifted schedules, prompts of several encoders."""

from dataclasses import replace

from invokeclone.shims.comfyui.node_types import BuildContext, choice, integer, link, node, number
from invokeclone.shims.comfyui.nodes.prompts import CONDITIONING, TEXT
from invokeclone.shims.comfyui.nodes.prompts import encode as encode_text
from invokeclone.shims.comfyui.values import Clip, EncodedPrompt, EncodedPrompts, Model

GUIDANCE = number(3.5, 0.0, 100.0, step=0.1)
SHIFT = number(3.0, 0.0, 100.0)
SIDE = integer(1024, 16, 16_384, step=8)


# Prompts


@node(
    "FluxGuidance",
    "FluxGuidance",
    "advanced/conditioning/flux",
    {"conditioning": CONDITIONING, "guidance": GUIDANCE},
    "CONDITIONING",
)
def set_guidance(_context: BuildContext, *, conditioning: EncodedPrompts, guidance: float) -> tuple[EncodedPrompts]:
    """Set the guidance of models that have it as an input; the sampler's `cfg` is that of the negative prompt."""
    return (replace(conditioning, guidance=guidance),)


@node(
    "CLIPTextEncodeFlux",
    "CLIPTextEncodeFlux",
    "advanced/conditioning/flux",
    {"clip": link("CLIP"), "clip_l": TEXT, "t5xxl": TEXT, "guidance": GUIDANCE},
    "CONDITIONING",
)
def encode_with_guidance(
    context: BuildContext, *, clip: Clip, clip_l: str, t5xxl: str, guidance: float
) -> tuple[EncodedPrompts]:
    """Encode a prompt and set the guidance. Both text encoders get the same text: T5's, if it is not empty."""
    return (replace(_encode_once(context, clip, t5xxl, clip_l), guidance=guidance),)


@node(
    "CLIPTextEncodeSD3",
    "CLIPTextEncodeSD3",
    "advanced/conditioning",
    {
        "clip": link("CLIP"),
        "clip_l": TEXT,
        "clip_g": TEXT,
        "t5xxl": TEXT,
        "empty_padding": choice("none", "empty_prompt"),
    },
    "CONDITIONING",
)
def encode_for_three(
    context: BuildContext,
    *,
    clip: Clip,
    clip_l: str,
    clip_g: str,
    t5xxl: str,
    empty_padding: str,  # noqa: ARG001  (the family determines the padding)
) -> tuple[EncodedPrompts]:
    """Encode a prompt. All text encoders get the same text: T5's, if it is not empty."""
    return (_encode_once(context, clip, t5xxl, clip_g, clip_l),)


def _encode_once(context: BuildContext, clip: Clip, *texts: str) -> EncodedPrompts:
    """Encode the first text that is not empty, and warn of others that differ."""
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) > 1:
        context.warn("all text encoders get one text: of those in the workflow, the others were not used")
    (encoded,) = encode_text(context, text=different[0] if different else "", clip=clip)
    return EncodedPrompts(encoded.texts)


@node(
    "ConditioningZeroOut",
    "ConditioningZeroOut",
    "advanced/conditioning",
    {"conditioning": CONDITIONING},
    "CONDITIONING",
)
def zero_out(context: BuildContext, *, conditioning: EncodedPrompts) -> tuple[EncodedPrompts]:
    """Remove the text of prompts, which become empty texts instead of zeros."""
    texts = [_without_text(context, index, text) for index, text in enumerate(conditioning.texts)]
    return (replace(conditioning, texts=tuple(texts)),)


def _without_text(context: BuildContext, index: int, text: EncodedPrompt) -> EncodedPrompt:
    context.unused.append(text.conditioning)
    recipe, encoders = text.clip.model.recipe, text.clip.encoders
    encoded = recipe.encode_prompt(context.builder, f"empty{index}", encoders, "", text.region)
    return EncodedPrompt(encoded, "", text.clip, text.region, zeroed=True, steps=text.steps)


# Schedules


@node(
    "ModelSamplingFlux",
    "ModelSamplingFlux",
    "advanced/model",
    {
        "model": link("MODEL"),
        "max_shift": replace(SHIFT, default=1.15),
        "base_shift": replace(SHIFT, default=0.5),
        "width": SIDE,
        "height": SIDE,
    },
    "MODEL",
)
def shift_by_size(
    context: BuildContext,
    *,
    model: Model,
    max_shift: float,
    base_shift: float,
    width: int,  # noqa: ARG001  (the sampled latents' is used)
    height: int,  # noqa: ARG001
) -> tuple[Model]:
    """Shift the schedule by the size of the image; only the model's usual shift has an effect."""
    return (_check_shift(context, model, max_shift=max_shift, base_shift=base_shift),)


@node(
    "DifferentialDiffusion",
    "Differential Diffusion",
    "_for_testing",
    {"model": link("MODEL"), "strength": replace(number(1.0, 0.0, 1.0), optional=True)},
    "MODEL",
)
def open_masks_gradually(context: BuildContext, *, model: Model, strength: float) -> tuple[Model]:
    """Let gray parts of masks change in some steps only; here they are blended in every step."""
    if strength and not model.recipe.reads_masked_image:
        context.warn("DifferentialDiffusion: gray parts of masks are blended in every step")
    return (model,)


@node(
    "ModelSamplingAuraFlow",
    "ModelSamplingAuraFlow",
    "advanced/model",
    {"model": link("MODEL"), "shift": replace(SHIFT, default=1.73)},
    "MODEL",
)
@node("ModelSamplingSD3", "ModelSamplingSD3", "advanced/model", {"model": link("MODEL"), "shift": SHIFT}, "MODEL")
def shift(context: BuildContext, *, model: Model, shift: float) -> tuple[Model]:
    """Shift the schedule, for models that can; for others only the usual shift has an effect."""
    if model.recipe.sets_shift:
        return (replace(model, shift=shift),)
    return (_check_shift(context, model, shift=shift),)


def _check_shift(context: BuildContext, model: Model, **requested: float) -> Model:
    """Return the model, with a warning if the shift is not that of its schedules."""
    shifts = model.recipe.schedule_shift
    if any(abs(shifts.get(name, -1.0) - value) > 0.001 for name, value in requested.items()):  # noqa: PLR2004  (rounding)
        names = ", ".join(f"{name} {value:g}" for name, value in requested.items())
        context.warn(f"{model.config.name} keeps its own schedule: {names} was not used")
    return model
