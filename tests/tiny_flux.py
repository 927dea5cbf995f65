"""Tiny FLUX.1 models with random weights, made once per run. A pytest plugin; torch is imported by its fixtures only."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

TRANSFORMER = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 32,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}
VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 16,
    "sample_size": 64,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TEXT_TOKENS = 6


def make_transformer(**changes: Any) -> Any:
    """Return a transformer of two double and two single blocks, in float32, with seeded random weights."""
    import torch
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(**{**TRANSFORMER, **changes}).eval()


def make_vae() -> Any:
    """Return an autoencoder of 16 channels with seeded random weights."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(**VAE).eval()


@pytest.fixture(scope="session")
def flux_transformer() -> Any:
    return make_transformer()


@pytest.fixture(scope="session")
def flux_vae() -> Any:
    return make_vae()


@pytest.fixture(scope="session")
def flux_text() -> "Callable[[int], tuple[torch.Tensor, torch.Tensor]]":
    """Return a function of a seed that gives a text (1, 6, 24) and a pooled embedding (1, 32)."""
    import torch

    def text(seed: int) -> "tuple[torch.Tensor, torch.Tensor]":
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(1, TEXT_TOKENS, TRANSFORMER["joint_attention_dim"], generator=generator)  # type: ignore[arg-type]
        return tokens, torch.randn(1, TRANSFORMER["pooled_projection_dim"], generator=generator)  # type: ignore[arg-type]

    return text


def original_names(weights: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return a transformer's tensors with the names and the fused layers of Black Forest Labs' files."""
    import torch

    from invokeclone.families.flux.single_files import NAMES

    layers = [*_SINGLE_LAYERS]
    for kind, count, names in (("double", 2, _DOUBLE_LAYERS), ("single", 2, _SINGLE_BLOCK_LAYERS)):
        layers += [f"{kind}_blocks.{number}.{name}" for number in range(count) for name in names]
    original = {}
    for layer in layers:
        modules = NAMES.module_names(layer)
        for ending in ("weight", "bias"):
            parts = [weights[f"{module}.{ending}"] for module in modules if f"{module}.{ending}" in weights]
            if not parts:
                continue
            tensor = torch.cat(parts)
            if layer == "final_layer.adaLN_modulation.1":
                tensor = torch.cat(tensor.chunk(2)[::-1])
            original[f"{layer}.{'scale' if layer.endswith('_norm') else ending}"] = tensor.clone()
    return original


_SINGLE_LAYERS = (
    "img_in", "txt_in", "time_in.in_layer", "time_in.out_layer", "vector_in.in_layer", "vector_in.out_layer",
    "guidance_in.in_layer", "guidance_in.out_layer", "final_layer.linear", "final_layer.adaLN_modulation.1",
)  # fmt: skip
_DOUBLE_LAYERS = (
    "img_mod.lin", "txt_mod.lin", "img_attn.qkv", "txt_attn.qkv", "img_attn.norm.query_norm",
    "img_attn.norm.key_norm", "txt_attn.norm.query_norm", "txt_attn.norm.key_norm", "img_attn.proj", "txt_attn.proj",
    "img_mlp.0", "img_mlp.2", "txt_mlp.0", "txt_mlp.2",
)  # fmt: skip
_SINGLE_BLOCK_LAYERS = ("linear1", "linear2", "norm.query_norm", "norm.key_norm", "modulation.lin")


@pytest.fixture(scope="session")
def flux_file(flux_transformer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the transformer as a single file with Black Forest Labs' names."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("flux") / "tiny-flux.safetensors"
    save_file(original_names(flux_transformer.state_dict()), path)
    return path


@pytest.fixture(scope="session")
def flux_folder(
    tmp_path_factory: pytest.TempPathFactory, sd1_parts: dict[str, Any], flux_transformer: Any, flux_vae: Any
) -> Path:
    """Save a whole FLUX.1 pipeline."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    from tests.tiny_transformers import make_t5, save_pipeline

    tokenizer, t5 = make_t5(24)
    parts = {
        "transformer": flux_transformer,
        "vae": flux_vae,
        "text_encoder": sd1_parts["text_encoder"],
        "tokenizer": sd1_parts["tokenizer"],
        "text_encoder_2": t5,
        "tokenizer_2": tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }
    return save_pipeline(tmp_path_factory.mktemp("flux-folder") / "tiny flux", "FluxPipeline", parts)
