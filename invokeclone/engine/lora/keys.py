"""Naming schemes of LoRA files, as data: every name is parsed into (part, layer, kind of tensor).

Layer names are flat, with underscores as in files of kohya's trainer, so that one map of a model's modules serves all
files.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from invokeclone.engine.lora.stacks import Stack

Rename = Callable[[str], str]
FindStack = Callable[[str], Stack | None]


def not_stacked(_layer: str) -> Stack | None:
    """Return None: the layer is one module."""
    return None


@dataclass(frozen=True)
class KeyLayout:
    """Family-specific naming: the model's parts by name prefix, and how layers are renamed."""

    prefixes: Sequence[tuple[str, str]]
    """Pairs (name prefix, part); the first match applies. Tensors of the part "" are ignored."""
    default_part: str
    """The part of names without such a prefix."""
    rename: Rename = str
    """Maps a layer's flat name in a file to its name in the model; identity by default."""
    stack: FindStack = not_stacked
    """Maps a layer's renamed flat name to the modules that it consists of; None for a layer that is one module."""


@dataclass(frozen=True)
class TensorName:
    """A parsed tensor name."""

    part: str
    layer: str
    kind: str
    """Named as in LyCORIS: lora_up.weight, hada_w1_a, alpha …"""
    path: str
    """The layer's name in the file, without the prefix of the part."""


_WRAPPERS = ("base_model.model.",)
"""Prefixes that PEFT adds to names."""
_IGNORED = ("bundle_emb",)
"""Prefixes of textual inversions in a LoRA file."""
_PLAIN = (
    r"lora_(?:up|down|mid)\.weight|set_weight|alpha|dora_scale|dora_magnitude|diff|diff_b|w_norm|b_norm|on_input"
    r"|oft_blocks|hada_[wt]\d(?:_[ab])?|lokr_[wt]\d(?:_[ab])?|bias_(?:indices|values|size)"
)
_KINDS = (
    (r"lora_B(?:\.[^.]+)?\.bias", "lora_up.bias"),
    (r"lora_A(?:\.(?!weight$)[^.]+)?(?:\.weight)?", "lora_down.weight"),
    (r"lora_B(?:\.(?!weight$)[^.]+)?(?:\.weight)?", "lora_up.weight"),
    (r"lora_magnitude_vector(?:\.(?!weight$)[^.]+)?(?:\.weight)?", "dora_magnitude"),
    (r"lora(?:_linear_layer)?\.down\.weight", "lora_down.weight"),
    (r"lora(?:_linear_layer)?\.up\.weight", "lora_up.weight"),
    (r"scale", "set_weight"),
    (rf"(?P<same>{_PLAIN})", ""),
)
_KIND = tuple((re.compile(rf"(?P<layer>.+)\.{pattern}$"), kind) for pattern, kind in _KINDS)
_PROCESSOR = re.compile(r"(?P<attention>.+?)(?:\.processor)?\.to_(?P<layer>q|k|v|out)_lora\.(?P<side>up|down)\.weight$")
"""Early diffusers: the layers of an attention processor, stored beside those of the attention."""
_NUMBERED_PROCESSOR = re.compile(r"(?P<layer>.+\.processor\.\w+_lora\d*)\.(?P<side>up|down)\.weight$")
"""XLabs: one layer per stream of an attention processor, such as `processor.qkv_lora1`."""
_PROCESSOR_LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_TEXT_LAYERS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}


def read_name(name: str, layout: KeyLayout) -> TensorName | None:
    """Return the parsed name, None for tensors that belong to no layer."""
    if name.startswith(_IGNORED):
        return None
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    layer, kind = _split(name)
    prefix, part = next(((p, part) for p, part in layout.prefixes if layer.startswith(p)), ("", layout.default_part))
    if not part:
        return None
    path = layer.removeprefix(prefix)
    return TensorName(part, layout.rename(path.replace(".", "_")), kind, path)


def _split(name: str) -> tuple[str, str]:
    """Return the layer's name and the kind of its tensor."""
    if match := _PROCESSOR.match(name):
        layers = _TEXT_LAYERS if ".self_attn" in match["attention"] else _PROCESSOR_LAYERS
        return f"{match['attention']}.{layers[match['layer']]}", f"lora_{match['side']}.weight"
    if match := _NUMBERED_PROCESSOR.match(name):
        return match["layer"], f"lora_{match['side']}.weight"
    for pattern, kind in _KIND:
        if match := pattern.match(name):
            return match["layer"], kind or match["same"]
    layer, _, kind = name.partition(".")
    return layer, kind


def adapter_names(names: Iterable[str]) -> set[str]:
    """Return the adapters that a PEFT file names, as NAME in lora_A.NAME.weight."""
    matches = (re.search(r"\.lora_A\.(?!weight$)([^.]+)(?:\.weight)?$", name) for name in names)
    return {match[1] for match in matches if match}
