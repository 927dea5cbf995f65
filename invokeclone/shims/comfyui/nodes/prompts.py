"""Nodes that encode and combine prompts."""

from dataclasses import replace

from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import PromptDetails
from invokeclone.queue.generation import MAX_SIDE, weights_dropped
from invokeclone.shims import embeddings
from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, choice, integer, link, node, number
from invokeclone.shims.comfyui.prompt_parser import parse
from invokeclone.shims.comfyui.values import Clip, EncodedPrompt, EncodedPrompts, Mask

CONDITIONING = link("CONDITIONING")
TEXT = NodeInput("STRING", "", multiline=True)
SIDE = integer(1024, 0, MAX_SIDE)
OFFSET = integer(0, 0, MAX_SIDE)


@node(
    "CLIPTextEncode",
    "CLIP Text Encode (Prompt)",
    "conditioning",
    {"text": TEXT, "clip": link("CLIP")},
    "CONDITIONING",
)
def encode(context: BuildContext, *, text: str, clip: Clip) -> tuple[EncodedPrompts]:
    """Encode a prompt; `(word:1.2)` weights a word, `embedding:name` applies a textual inversion."""
    prompt_text = _translate_prompt(context, text, clip)
    encoded = clip.model.recipe.encode_prompt(context.builder, "prompt", clip.encoders, prompt_text)
    return (EncodedPrompts((EncodedPrompt(encoded, prompt_text, clip),)),)


def _translate_prompt(context: BuildContext, text: str, clip: Clip) -> str:
    """Return a text in the prompt syntax of the model that encodes it."""
    if len(text) > (limit := context.limits.prompt_characters):
        context.refuse(f"the prompt has {len(text)} characters, more than {limit} (setting limits.prompt_characters)")
    trigger_map = embeddings.triggers(context.catalog.embeddings, str(clip.model.config.base))
    prompt = Prompt.from_segments(parse(embeddings.replace_prefixed(text, trigger_map)))
    if clip.model.recipe.drops_weights(prompt):
        context.warn(weights_dropped(clip.model.config))
    return clip.model.recipe.write_prompt(prompt)


@node(
    "CLIPTextEncodeSDXL",
    "CLIPTextEncodeSDXL",
    "advanced/conditioning",
    {
        "clip": link("CLIP"),
        "width": SIDE,
        "height": SIDE,
        "crop_w": OFFSET,
        "crop_h": OFFSET,
        "target_width": SIDE,
        "target_height": SIDE,
        "text_g": TEXT,
        "text_l": TEXT,
    },
    "CONDITIONING",
)
def encode_sdxl(
    context: BuildContext,
    *,
    clip: Clip,
    width: int,
    height: int,
    crop_w: int,
    crop_h: int,
    target_width: int,
    target_height: int,
    text_g: str,
    text_l: str,
) -> tuple[EncodedPrompts]:
    """Encode a prompt for each text encoder of SDXL, conditioned on image sizes and a crop."""
    details = PromptDetails(
        second_text=_translate_prompt(context, text_g, clip),
        original_size=(width, height),
        crop=(crop_w, crop_h),
        target_size=(target_width, target_height),
    )
    return (_encode_with_details(context, clip, text_l, details),)


@node(
    "CLIPTextEncodeSDXLRefiner",
    "CLIPTextEncodeSDXLRefiner",
    "advanced/conditioning",
    {
        "ascore": number(6.0, 0.0, 1000.0),
        "width": SIDE,
        "height": SIDE,
        "text": TEXT,
        "clip": link("CLIP"),
    },
    "CONDITIONING",
)
def encode_refiner(
    context: BuildContext, *, ascore: float, width: int, height: int, text: str, clip: Clip
) -> tuple[EncodedPrompts]:
    """Encode a prompt for the SDXL refiner, conditioned on an image size and an aesthetic score."""
    details = PromptDetails(original_size=(width, height), aesthetic_score=ascore)
    return (_encode_with_details(context, clip, text, details),)


def _encode_with_details(context: BuildContext, clip: Clip, text: str, details: PromptDetails) -> EncodedPrompts:
    prompt_text = _translate_prompt(context, text, clip)
    encoded = clip.model.recipe.encode_detailed_prompt(context.builder, "prompt", clip.encoders, prompt_text, details)
    return EncodedPrompts((EncodedPrompt(encoded, prompt_text, clip, details=details),))


@node(
    "CLIPSetLastLayer",
    "CLIP Set Last Layer",
    "conditioning",
    {"clip": link("CLIP"), "stop_at_clip_layer": integer(-1, -24, -1)},
    "CLIP",
)
def set_last_layer(context: BuildContext, *, clip: Clip, stop_at_clip_layer: int) -> tuple[Clip]:
    """Stop at a layer of the text encoder, counted from the last one, which is -1."""
    skipped = -1 - stop_at_clip_layer
    if skipped:
        context.require(clip.model.config, "clip_skip")
    return (clip.with_skipped_layers(context, skipped),)


@node(
    "ConditioningCombine",
    "Conditioning (Combine)",
    "conditioning",
    {"conditioning_1": CONDITIONING, "conditioning_2": CONDITIONING},
    "CONDITIONING",
)
def combine(
    _context: BuildContext, *, conditioning_1: EncodedPrompts, conditioning_2: EncodedPrompts
) -> tuple[EncodedPrompts]:
    """Combine prompts, each in the area of its mask. Prompts without masks are concatenated."""
    return (conditioning_1.concat(conditioning_2),)


@node(
    "ConditioningConcat",
    "Conditioning (Concat)",
    "conditioning",
    {"conditioning_to": CONDITIONING, "conditioning_from": CONDITIONING},
    "CONDITIONING",
)
def concat(
    _context: BuildContext, *, conditioning_to: EncodedPrompts, conditioning_from: EncodedPrompts
) -> tuple[EncodedPrompts]:
    """Concatenate two prompts."""
    return (conditioning_to.concat(conditioning_from),)


@node(
    "ConditioningSetTimestepRange",
    "ConditioningSetTimestepRange",
    "advanced/conditioning",
    {
        "conditioning": CONDITIONING,
        "start": number(0.0, 0.0, 1.0, step=0.001),
        "end": number(1.0, 0.0, 1.0, step=0.001),
    },
    "CONDITIONING",
)
def set_steps(
    context: BuildContext, *, conditioning: EncodedPrompts, start: float, end: float
) -> tuple[EncodedPrompts]:
    """Restrict prompts to a range of the steps. Samplers use the prompts with the longest range, for all steps."""
    if start >= end:
        context.refuse(f"start must be less than end, not {start:g}")
    return (replace(conditioning, texts=tuple(replace(text, steps=(start, end)) for text in conditioning.texts)),)


@node(
    "ConditioningSetMask",
    "Conditioning (Set Mask)",
    "conditioning",
    {
        "conditioning": CONDITIONING,
        "mask": link("MASK"),
        "strength": number(1.0, 0.0, 10.0),
        "set_cond_area": choice("default", "mask bounds"),
    },
    "CONDITIONING",
)
def set_mask(
    context: BuildContext,
    *,
    conditioning: EncodedPrompts,
    mask: Mask,
    strength: float,
    set_cond_area: str,  # noqa: ARG001  (the area is always the mask's)
) -> tuple[EncodedPrompts]:
    """Restrict prompts to the white area of a mask."""
    if strength != 1.0:
        context.refuse(f"a strength of {strength:g} is not supported for a masked prompt, only 1")
    if any(text.region for text in conditioning.texts):
        context.refuse("the prompt already has a mask")
    region = context.output(
        "tensor", "image_mask_to_tensor", "mask", image=mask.to_image(context, "region", white_changes=True)
    )
    texts = []
    for index, text in enumerate(conditioning.texts):
        recipe = text.clip.model.recipe
        context.require(text.clip.model.config, "regional_prompts")
        role, encoders = f"prompt{index}", text.clip.encoders
        if text.details == PromptDetails():
            encoded = recipe.encode_prompt(context.builder, role, encoders, text.text, region)
        else:
            encoded = recipe.encode_detailed_prompt(context.builder, role, encoders, text.text, text.details, region)
        texts.append(replace(text, conditioning=encoded, region=region))
    return (replace(conditioning, texts=tuple(texts)),)
