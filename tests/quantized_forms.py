"""Tiny networks in each form of the table in docs/models.md, as a file and as a folder of each family and encoder."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from invokeclone.graph.vocabulary.taxonomy import SubModelType
from tests import tiny_transformers as tiny
from tests.quantized_files import float8, int8, nf4, sdnq_uint4, write_gguf
from tests.tiny_flux import make_transformer, original_names

Tensors = dict[str, torch.Tensor]
FULL, FLOAT8, SCALED, GGUF, NF4, INT8, SDNQ = (
    "full precision", "8-bit floats", "8-bit floats with scales", "GGUF", "bitsandbytes NF4, FP4", "bitsandbytes LLM.int8",
    "SDNQ",
)  # fmt: skip
TOLERANCES = {FULL: 0.01, FLOAT8: 0.05, SCALED: 0.05, GGUF: 0.02, NF4: 0.2, INT8: 0.02, SDNQ: 0.15}
"""Relative error of the weights, by form."""
_LAYERS: dict[str, Callable[[str, torch.Tensor], Tensors]] = {
    FLOAT8: lambda path, weight: {f"{path}.weight": weight.to(torch.float8_e4m3fn)},
    SCALED: float8,
    NF4: lambda path, weight: nf4(f"{path}.weight", weight),
    INT8: int8,
    SDNQ: sdnq_uint4,
}
_SETTINGS = {
    NF4: {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    INT8: {"quant_method": "bitsandbytes", "load_in_8bit": True},
    SDNQ: {"quant_method": "sdnq", "weights_dtype": "uint4", "group_size": 16},
}
_NOT_LAYERS = ("embed_tokens", "shared", "relative_attention_bias", "norm", "pad_token")
"""Parts of the names of tensors that the programs leave as they are."""


def quantize(form: str, tensors: Tensors) -> Tensors:
    """Return the tensors of a file in a form; those of linear layers are quantized."""
    stored: Tensors = {}
    for name, value in tensors.items():
        is_layer = value.ndim == 2 and name.endswith(".weight") and not any(part in name for part in _NOT_LAYERS)
        fits = form not in (NF4, SDNQ) or value.numel() % 64 == 0
        if form in _LAYERS and is_layer and fits:
            stored |= _LAYERS[form](name.removesuffix(".weight"), value)
        else:
            stored[name] = value.clone()
    return stored


@dataclass(frozen=True)
class Target:
    """A network of a family, or an encoder."""

    make: Callable[[], Any]
    run: Callable[[Any], torch.Tensor]
    """Return the output of the network, or of its loaded counterpart."""
    kind: dict[str, str]
    """What is stated when it is installed: tiny networks have other widths than published ones."""
    part: SubModelType
    names_of_file: Callable[[Tensors], Tensors]
    folder: str
    """Its folder in the record's folder; empty for the same."""
    pipeline: str = ""
    """The class in model_index.json."""
    names_of_gguf: Callable[[Tensors], Tensors] | None = None
    formats: dict[tuple[str, str], str] = field(default_factory=dict)
    """The format that is stated by form and layout, where there is another than the one of the layout."""

    def write(self, form: str, layout: str, model: Any, root: Path) -> Path:
        """Write the network in a form, and return the path to install."""
        return self._write_folder(form, model, root) if layout == "folder" else self._write_file(form, model, root)

    def _write_file(self, form: str, model: Any, root: Path) -> Path:
        if form == GGUF:
            path = root / "tiny.gguf"
            write_gguf(path, (self.names_of_gguf or self.names_of_file)(model.state_dict()), "Q8_0")
            return path
        path = root / ("tiny_llm_int8.safetensors" if form == INT8 else "tiny.safetensors")
        save_file(quantize(form, self.names_of_file(model.state_dict())), path)
        return path

    def _write_folder(self, form: str, model: Any, root: Path) -> Path:
        folder = root / "tiny" / self.folder
        model.save_pretrained(folder)
        if self.pipeline:
            index = {"_class_name": self.pipeline, self.folder: ["diffusers", type(model).__name__]}
            (root / "tiny" / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
        (written,) = folder.glob("*.safetensors")
        path = written.with_name("bnb_llm_int8_model.safetensors") if form == INT8 else written
        names = model.state_dict().keys() - {"encoder.embed_tokens.weight", "lm_head.weight"}
        stored = quantize(form, {name: model.state_dict()[name] for name in names})
        written.unlink()
        save_file(stored, path)
        if "text_encoder" in self.folder:
            shards = {"metadata": {}, "weight_map": dict.fromkeys(stored, path.name)}
            (folder / "model.safetensors.index.json").write_text(json.dumps(shards), encoding="utf-8")
        if form in _SETTINGS:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            (folder / "config.json").write_text(
                json.dumps(config | {"quantization_config": _SETTINGS[form]}), encoding="utf-8"
            )
        return root / "tiny"

    def stated(self, form: str, layout: str) -> dict[str, str]:
        """Return what is stated when the network is installed in a form."""
        usual = {"file": "checkpoint", "folder": "diffusers"}[layout]
        usual = {GGUF: "gguf_quantized", SDNQ: "sdnq_quantized"}.get(form, usual)
        return self.kind | {"format": self.formats.get((form, layout), self.formats.get(("", layout), usual))}


def _values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _call(model: Any, *tensors: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
    """Return the first output for inputs in the network's number format."""
    cast = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in named.items()}
    with torch.inference_mode():
        return model(*[t.to(model.dtype) for t in tensors], **cast, return_dict=False)[0].float()


def _run_flux(model: Any) -> torch.Tensor:
    return _call(
        model, hidden_states=_values(1, 16, 64), encoder_hidden_states=_values(1, 6, 64), pooled_projections=_values(1, 64),
        timestep=torch.tensor([0.5]), guidance=torch.tensor([3.5]), img_ids=torch.arange(48.0).reshape(16, 3) % 4,
        txt_ids=torch.zeros(6, 3),
    )  # fmt: skip


def _run_flux2(model: Any) -> torch.Tensor:
    return _call(
        model, hidden_states=_values(1, 16, 128), encoder_hidden_states=_values(1, 6, 64), timestep=torch.tensor([0.5]),
        img_ids=torch.arange(64.0).reshape(16, 4) % 4, txt_ids=torch.zeros(6, 4),
    )  # fmt: skip


def _run_z_image(model: Any) -> torch.Tensor:
    latents, text = _values(16, 1, 16, 16).to(model.dtype), _values(9, 32).to(model.dtype)
    with torch.inference_mode():
        (output,) = model([latents], torch.tensor([0.3]).to(model.dtype), [text], return_dict=False)[0]
    return output.float()


def _run_sd3(model: Any) -> torch.Tensor:
    return _call(
        model, hidden_states=_values(1, 16, 8, 8), encoder_hidden_states=_values(1, 5, 64),
        pooled_projections=_values(1, 56), timestep=torch.tensor([500]),
    )  # fmt: skip


def _run_cogview4(model: Any) -> torch.Tensor:
    sizes = torch.tensor([[64.0, 64.0]])
    return _call(
        model, hidden_states=_values(1, 16, 8, 8), encoder_hidden_states=_values(1, 5, 32), timestep=torch.tensor([500]),
        original_size=sizes, target_size=sizes, crop_coords=torch.zeros(1, 2),
    )  # fmt: skip


def _run_encoder(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        output = getattr(model, "model", model)(input_ids=torch.tensor([[5, 9, 12, 30]]))
    return output.last_hidden_state.float()


def _make_qwen3() -> Any:
    model = tiny.make_qwen3(64)[1]
    theta = 1e6 ** (-torch.arange(0, 8, 2) / 8)
    model.model.rotary_emb.inv_freq = theta  # that of published models, which files do not have
    model.config.rope_parameters["rope_theta"] = 1e6
    return model


def _without_tied(tensors: Tensors) -> Tensors:
    return {
        name: value for name, value in tensors.items() if name not in ("encoder.embed_tokens.weight", "lm_head.weight")
    }


def _qwen3_gguf(tensors: Tensors) -> Tensors:
    from invokeclone.components.text_encoders.names import BLOCK_NAMES, OUTER_NAMES

    blocks, outer = ({module: name for name, module in names.items()} for names in (BLOCK_NAMES, OUTER_NAMES))
    renamed = {}
    for name, value in _without_tied(tensors).items():
        short = name.removeprefix("model.")
        if short.startswith("layers."):
            _, number, layer = short.removesuffix(".weight").split(".", 2)
            short = f"blk.{number}.{blocks[layer]}.weight"
        layer, _, kind = short.partition(".")
        renamed[f"{outer[layer]}.{kind}" if layer in outer else short] = value
    return renamed


def _t5_gguf(tensors: Tensors) -> Tensors:
    from tests.components.text_encoders.test_t5_files import llama_names

    return llama_names(tensors)


def _main(base: str, **variant: str) -> dict[str, str]:
    return {"type": "main", "base": base, **variant}


_T5_FORMATS = {("", "file"): "t5_encoder", ("", "folder"): "t5_encoder", (GGUF, "file"): "gguf_quantized"}
_T5_FORMATS |= {(INT8, layout): "bnb_quantized_int8b" for layout in ("file", "folder")}
_T5_FORMATS |= {(SDNQ, layout): "sdnq_quantized" for layout in ("file", "folder")}
_HEAD = {"attention_head_dim": 32, "joint_attention_dim": 64}
_TRANSFORMER = SubModelType.Transformer

TARGETS = {
    "FLUX.1": Target(
        lambda: make_transformer(**_HEAD, pooled_projection_dim=64, axes_dims_rope=(4, 14, 14)), _run_flux,
        _main("flux", variant="dev"), _TRANSFORMER, original_names, "transformer", "FluxPipeline",
        formats={(NF4, "file"): "bnb_quantized_nf4b"},
    ),
    "FLUX.2": Target(
        lambda: tiny.make_flux2_transformer(**_HEAD, axes_dims_rope=(8, 8, 8, 8)), _run_flux2,
        _main("flux2", variant="klein_4b"), _TRANSFORMER, tiny.original_flux2_names, "transformer", "Flux2KleinPipeline",
    ),
    "Z-Image": Target(
        tiny.make_z_image_transformer, _run_z_image, _main("z-image", variant="turbo"), _TRANSFORMER,
        tiny.original_z_image_names, "transformer", "ZImagePipeline",
    ),
    "Stable Diffusion 3": Target(
        lambda: tiny.make_sd3_parts(None)["transformer"], _run_sd3, _main("sd-3"), _TRANSFORMER, dict, "transformer",
        "StableDiffusion3Pipeline", formats={(SDNQ, "folder"): "diffusers"},
    ),
    "CogView4": Target(
        lambda: tiny.make_cogview4_parts()["transformer"], _run_cogview4, _main("cogview4"), _TRANSFORMER, dict,
        "transformer", "CogView4Pipeline", formats={(SDNQ, "folder"): "diffusers"},
    ),
    "T5": Target(
        lambda: tiny.make_t5(64)[1], _run_encoder, {"type": "t5_encoder", "base": "any"}, SubModelType.TextEncoder2,
        _without_tied, "text_encoder_2", names_of_gguf=_t5_gguf, formats=_T5_FORMATS,
    ),
    "Qwen3": Target(
        _make_qwen3, _run_encoder, {"type": "qwen3_encoder", "base": "any", "variant": "qwen3_4b"},
        SubModelType.TextEncoder, _without_tied, "", names_of_gguf=_qwen3_gguf, formats={("", "folder"): "qwen3_encoder",
        (SDNQ, "folder"): "sdnq_quantized", (SDNQ, "file"): "sdnq_quantized", (GGUF, "file"): "gguf_quantized"},
    ),
}  # fmt: skip
