"""Nodes that encode prompts and put them together."""

from dataclasses import replace

from invokeclone.graph.prompts import Prompt
from invokeclone.shims import embeddings
from invokeclone.shims.comfyui.language import parse
from invokeclone.shims.comfyui.values import Clip, Conditioning, Mask, Text
from invokeclone.shims.comfyui.vocabulary import Input, Place, choice, integer, link, node, number

CONDITIONING = link("CONDITIONING")
MAX_CHARACTERS = 50_000


@node(
    "CLIPTextEncode",
    "CLIP Text Encode (Prompt)",
    "conditioning",
    {"text": Input("STRING", "", multiline=True), "clip": link("CLIP")},
    "CONDITIONING",
)
def encode(place: Place, *, text: str, clip: Clip) -> tuple[Conditioning]:
    """Encode a prompt; `(word:1.2)` weighs a word, `embedding:name` is a textual inversion."""
    if len(text) > MAX_CHARACTERS:
        place.refuse(f"the prompt has {len(text)} characters, at most {MAX_CHARACTERS} are read")
    known = embeddings.triggers(place.catalog.embeddings, str(clip.model.config.base))
    written = clip.model.recipe.write_prompt(Prompt.weighted(parse(embeddings.by_prefix(text, known))))
    encoded = clip.model.recipe.encode_prompt(place.builder, "prompt", clip.encoders, written)
    return (Conditioning((Text(encoded, written, clip),)),)


@node(
    "CLIPSetLastLayer",
    "CLIP Set Last Layer",
    "conditioning",
    {"clip": link("CLIP"), "stop_at_clip_layer": integer(-1, -24, -1)},
    "CLIP",
)
def set_last_layer(place: Place, *, clip: Clip, stop_at_clip_layer: int) -> tuple[Clip]:
    """Stop at a layer of the text encoder, counted from the last one, which is -1."""
    skipped = -1 - stop_at_clip_layer
    if skipped:
        place.require(clip.model.config, "clip_skip")
    return (clip.skipping(place, skipped),)


@node(
    "ConditioningCombine",
    "Conditioning (Combine)",
    "conditioning",
    {"conditioning_1": CONDITIONING, "conditioning_2": CONDITIONING},
    "CONDITIONING",
)
def combine(place: Place, *, conditioning_1: Conditioning, conditioning_2: Conditioning) -> tuple[Conditioning]:  # noqa: ARG001
    """Follow both prompts, each where its mask is white. Without masks they are put behind each other."""
    return (conditioning_1.followed_by(conditioning_2),)


@node(
    "ConditioningConcat",
    "Conditioning (Concat)",
    "conditioning",
    {"conditioning_to": CONDITIONING, "conditioning_from": CONDITIONING},
    "CONDITIONING",
)
def concat(place: Place, *, conditioning_to: Conditioning, conditioning_from: Conditioning) -> tuple[Conditioning]:  # noqa: ARG001
    """Put one prompt behind the other."""
    return (conditioning_to.followed_by(conditioning_from),)


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
    place: Place,
    *,
    conditioning: Conditioning,
    mask: Mask,
    strength: float,
    set_cond_area: str,  # noqa: ARG001  (the mask states the area, whatever its bounds)
) -> tuple[Conditioning]:
    """Let prompts hold where a mask is white."""
    if strength != 1.0:
        place.refuse(f"a strength of {strength:g} cannot be given to a masked prompt, only 1")
    if any(text.masked for text in conditioning.texts):
        place.refuse("a prompt that has a mask already cannot get another one")
    region = place.output(
        "tensor", "image_mask_to_tensor", "mask", image=mask.drawn(place, "region", white_changes=True)
    )
    texts = []
    for index, text in enumerate(conditioning.texts):
        recipe = text.clip.model.recipe
        place.require(text.clip.model.config, "regional_prompts")
        encoded = recipe.encode_prompt(place.builder, f"prompt{index}", text.clip.encoders, text.text, region)
        texts.append(replace(text, conditioning=encoded, masked=True))
    return (replace(conditioning, texts=tuple(texts)),)
