"""How LoRA files name the layers they change, as data: every name becomes (part, layer, kind of tensor).

A layer's name has underscores throughout, as kohya's trainer writes it, so that one map of a model's modules serves all files.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Rename = Callable[[str], str]


@dataclass(frozen=True)
class KeyLayout:
    """What a family adds: which parts a model has, by the beginnings of names, and how layers are renamed."""

    prefixes: Sequence[tuple[str, str]]
    """(beginning of a name, part); the first that fits counts."""
    default_part: str
    """The part of names that have no such beginning."""
    rename: Rename = str
    """From a layer's flat name in a file to the one in the model; the same name where nothing is to be done."""


@dataclass(frozen=True)
class TensorName:
    """What a name in a file means."""

    part: str
    layer: str
    kind: str
    """As LyCORIS names it: lora_up.weight, hada_w1_a, alpha …"""
    path: str
    """The layer as the file names it, without the beginning that names the part."""


_WRAPPERS = ("base_model.model.",)
"""What PEFT puts before names."""
_IGNORED = ("bundle_emb",)
"""Textual inversions in a LoRA's file."""
_PLAIN = (
    r"lora_(?:up|down|mid)\.weight|alpha|dora_scale|dora_magnitude|diff|diff_b|w_norm|b_norm|on_input"
    r"|oft_blocks|hada_[wt]\d(?:_[ab])?|lokr_[wt]\d(?:_[ab])?|bias_(?:indices|values|size)"
)
_KINDS = (
    (r"lora_A(?:\.(?!weight$)[^.]+)?(?:\.weight)?", "lora_down.weight"),
    (r"lora_B(?:\.(?!weight$)[^.]+)?(?:\.weight)?", "lora_up.weight"),
    (r"lora_magnitude_vector(?:\.(?!weight$)[^.]+)?(?:\.weight)?", "dora_magnitude"),
    (r"lora(?:_linear_layer)?\.down\.weight", "lora_down.weight"),
    (r"lora(?:_linear_layer)?\.up\.weight", "lora_up.weight"),
    (rf"(?P<same>{_PLAIN})", ""),
)
_KIND = tuple((re.compile(rf"(?P<layer>.+)\.{pattern}$"), kind) for pattern, kind in _KINDS)
_PROCESSOR = re.compile(r"(?P<attention>.+?)(?:\.processor)?\.to_(?P<layer>q|k|v|out)_lora\.(?P<side>up|down)\.weight$")
"""Early diffusers: a processor's own layers beside those of the attention."""
_PROCESSOR_LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_TEXT_LAYERS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}


def read_name(name: str, layout: KeyLayout) -> TensorName | None:
    """Return what a name in a file means; None for tensors that belong to no layer."""
    if name.startswith(_IGNORED):
        return None
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    layer, kind = _split(name)
    prefix, part = next(((p, part) for p, part in layout.prefixes if layer.startswith(p)), ("", layout.default_part))
    path = layer.removeprefix(prefix)
    return TensorName(part, layout.rename(path.replace(".", "_")), kind, path)


def _split(name: str) -> tuple[str, str]:
    """Return a layer's name and the kind of its tensor."""
    if match := _PROCESSOR.match(name):
        layers = _TEXT_LAYERS if ".self_attn" in match["attention"] else _PROCESSOR_LAYERS
        return f"{match['attention']}.{layers[match['layer']]}", f"lora_{match['side']}.weight"
    for pattern, kind in _KIND:
        if match := pattern.match(name):
            return match["layer"], kind or match["same"]
    layer, _, kind = name.partition(".")
    return layer, kind


def adapter_names(names: Iterable[str]) -> set[str]:
    """Return the adapters that a PEFT file names, as NAME in lora_A.NAME.weight."""
    matches = (re.search(r"\.lora_A\.(?!weight$)([^.]+)(?:\.weight)?$", name) for name in names)
    return {match[1] for match in matches if match}
