"""LoRAs of the layers of a model, under the names and factors of the known trainers."""

from collections.abc import Callable

from tests.models.identify.layouts import Shapes

RANK = 16


def layers(shapes: Shapes, *words: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the matrices of a model; with `words`, only those whose name contains one."""
    matrices = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    return {
        name: shape
        for name, shape in matrices.items()
        if len(shape) > 1 and "embed_tokens" not in name and (not words or any(word in name for word in words))
    }


def _low_rank(down: str, up: str) -> Callable[[str, tuple[int, ...]], Shapes]:
    def factors(name: str, shape: tuple[int, ...]) -> Shapes:
        ends = tuple(1 for _ in shape[2:])
        return {f"{name}.{down}": (RANK, *shape[1:]), f"{name}.{up}": (shape[0], RANK, *ends)}

    return factors


def _loha(name: str, shape: tuple[int, ...]) -> Shapes:
    rows, columns = shape[:2]
    return {f"{name}.hada_w{k}_{s}": (rows, RANK) if s == "a" else (RANK, columns) for k in (1, 2) for s in "ab"}


def _lokr(name: str, shape: tuple[int, ...]) -> Shapes:
    rows, columns = shape[:2]
    first = 4 if rows % 4 == 0 and columns % 4 == 0 else 1
    return {
        f"{name}.lokr_w1": (first, first),
        f"{name}.lokr_w2_a": (rows // first, RANK),
        f"{name}.lokr_w2_b": (RANK, columns // first),
        f"{name}.alpha": (),
    }


def _lokr_split(name: str, shape: tuple[int, ...]) -> Shapes:
    rows, columns = shape[:2]
    return {
        f"{name}.lokr_w1_a": (4, 2),
        f"{name}.lokr_w1_b": (2, 4),
        f"{name}.lokr_w2": (rows // 4, columns // 4),
    }


_NAMES: dict[str, Callable[[str], str]] = {
    "kohya": lambda name: "lora_unet_" + name.replace(".", "_"),
    "onetrainer": lambda name: "lora_transformer_" + name.replace(".", "_"),
    "lycoris": lambda name: "lycoris_" + name.replace(".", "_"),
    "comfy": lambda name: f"diffusion_model.{name}",
    "diffusers": lambda name: f"transformer.{name}",
    "peft": lambda name: f"base_model.model.{name}",
    "unet": lambda name: f"unet.{name}",
    "bare": lambda name: name,
}
_FACTORS = {
    "kohya": _low_rank("lora_down.weight", "lora_up.weight"),
    "peft": _low_rank("lora_A.weight", "lora_B.weight"),
    "named": _low_rank("lora_A.default.weight", "lora_B.default.weight"),
    "diffusers": _low_rank("lora.down.weight", "lora.up.weight"),
    "loha": _loha,
    "lokr": _lokr,
    "lokr_split": _lokr_split,
}
_OF_NAMES = {"kohya": "kohya", "onetrainer": "kohya", "lycoris": "lokr", "comfy": "peft", "diffusers": "peft",
             "peft": "peft", "unet": "peft", "bare": "diffusers"}  # fmt: skip


def lora(shapes: Shapes, names: str, *words: str, factors: str = "") -> Shapes:
    """Return a LoRA of the layers of a model under the `names` of a trainer."""
    make = _FACTORS[factors or _OF_NAMES[names]]
    parts = (make(_NAMES[names](name), shape) for name, shape in layers(shapes, *words).items())
    return {name: shape for part in parts for name, shape in part.items()}


def xlabs(blocks: int = 2, width: int = 3072) -> Shapes:
    """Return a LoRA of FLUX.1 as XLabs saves it: the factors of a processor for each stream."""
    result: Shapes = {}
    for block in range(blocks):
        for layer, rows in (("qkv", 3 * width), ("proj", width)):
            for stream in (1, 2):
                stem = f"double_blocks.{block}.processor.{layer}_lora{stream}"
                result |= {f"{stem}.down.weight": (RANK, width), f"{stem}.up.weight": (rows, RANK)}
    return result


def text_encoder_lora(prefix: str, width: int) -> Shapes:
    make = _FACTORS["kohya"]
    names = ("q_proj", "k_proj", "v_proj")
    parts = (make(f"{prefix}_text_model_encoder_layers_0_self_attn_{name}", (width, width)) for name in names)
    return {name: shape for part in parts for name, shape in part.items()}
