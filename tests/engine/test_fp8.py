"""Weights stored in 8 bits against the same weights rounded by hand, and against diffusers' layerwise casting."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from invokeclone.engine import fp8
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import loaders
from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.layers import DoRA, Full, LayerChange, LoRA
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.engine.placement import size_of
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from tests.tiny_models import make_unet, noise_of

CPU = torch.device("cpu")


class Block(nn.Module):
    """One layer of each kind, under names of which some stay in full."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(10, 8)
        self.to_q = nn.Linear(8, 8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bare = nn.Linear(8, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.norm_linear = nn.Linear(8, 8)
        self.proj_out = nn.Linear(8, 8)
        self.inner = nn.ModuleDict({"proj_in": nn.Linear(8, 8), "sequence": nn.Conv1d(8, 8, 1)})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.to_q(self.tokens(tokens)))
        hidden = self.norm_linear(self.bare(self.inner["proj_in"](hidden)))
        hidden = self.inner["sequence"](hidden.transpose(1, 2))[..., None]
        return self.proj_out(self.conv(hidden)[..., 0].transpose(1, 2))


STORED = {"tokens", "to_q", "conv", "bare", "inner.proj_in", "inner.sequence"}
TOKENS = torch.arange(6)[None]


def round_layers(model: nn.Module, layers: set[str], dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy with the weights and biases of layers rounded to 8 bits."""
    copied = copy.deepcopy(model).to(dtype)
    for name in layers:
        for parameter in copied.get_submodule(name).parameters():
            parameter.data = parameter.data.to(torch.float8_e4m3fn).to(dtype)
    return copied


def unet_layers(unet: nn.Module) -> set[str]:
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
    return {name for name, module in unet.named_modules() if isinstance(module, kinds) and "norm" not in name}


def run(unet: Any) -> torch.Tensor:
    with torch.inference_mode():
        return unet(noise_of(1).to(unet.dtype), torch.tensor(500), noise_of(2, 1, 5, 32).to(unet.dtype)).sample


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_compute_with_weights_rounded_to_8_bits(dtype: torch.dtype):
    block = Block()
    expected = round_layers(block, STORED, dtype)(TOKENS)
    stored = fp8.store(block.to(dtype), dtype)
    assert torch.equal(stored(TOKENS), expected)
    small = {
        name for name, module in stored.named_modules() for p in module.parameters(recurse=False) if p.itemsize == 1
    }
    assert small == STORED


def test_unet_memory_shrinks_to_a_quarter_of_float32_and_half_of_float16():
    for dtype, share in ((torch.float32, 0.25), (torch.float16, 0.5)):
        plain = size_of(make_unet().to(dtype))
        assert size_of(fp8.store(make_unet().to(dtype), dtype)) == pytest.approx(plain * share, rel=0.05)


def test_unet_output_matches_rounded_weights_and_diffusers_layerwise_casting():
    unet = make_unet()
    expected = run(round_layers(unet, unet_layers(unet)))
    reference = make_unet()
    reference.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    stored = fp8.store(make_unet(), torch.float32)
    assert torch.equal(run(stored), expected)
    assert torch.equal(run(reference), expected)
    assert not torch.equal(run(unet), expected)
    assert (stored.dtype, type(stored).__name__) == (torch.float32, "UNet2DConditionModel")
    assert isinstance(stored, type(unet))


class TestLoRA:
    LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    CONVOLUTION = "down_blocks.0.resnets.0.conv1"
    NORM = "conv_norm_out"

    def changes(self) -> dict[str, LayerChange]:
        linear = LoRA(noise_of(1, 16, 2), noise_of(2, 2, 32), None, 0.5)
        convolution = LoRA(noise_of(3, 8, 2, 1, 1), noise_of(4, 2, 8, 3, 3), None, 1.0)
        return {
            self.LINEAR: DoRA(linear, noise_of(5, 16).abs(), by_input=False),
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": LoRA(noise_of(6, 16, 2), noise_of(7, 2, 16), None, 1.0),
            self.CONVOLUTION: convolution,
            "conv_in": Full(None, noise_of(8, 8)),
            self.NORM: Full(noise_of(9, 8), noise_of(10, 8)),
        }  # fmt: skip

    def test_loras_apply_to_rounded_weights_and_stored_weights_stay(self):
        unet = make_unet()
        stored, by_hand = fp8.store(make_unet(), torch.float32), round_layers(unet, unet_layers(unet))
        before = {name: parameter.data.clone() for name, parameter in stored.state_dict().items()}
        pointers = {name: parameter.data_ptr() for name, parameter in stored.named_parameters()}
        plain = run(stored)
        changes = self.changes()
        for name, change in changes.items():
            module = by_hand.get_submodule(name)
            if (delta := change.weight_delta(module.weight.data)) is not None:
                module.weight.data = module.weight.data + 0.5 * delta
            if (bias := change.bias_delta()) is not None:
                module.bias.data = module.bias.data + 0.5 * bias
        patch = LoRAPatch("style", {name.replace(".", "_"): change for name, change in changes.items()}, 0.5)
        with apply_loras(stored, [patch], CPU):
            assert torch.allclose(run(stored), run(by_hand), atol=1e-5)
            assert stored.get_submodule(self.LINEAR).weight.data_ptr() == pointers[f"{self.LINEAR}.weight"]
        assert not any(module._forward_hooks for module in stored.modules())
        assert {name: parameter.data_ptr() for name, parameter in stored.named_parameters()} == pointers
        assert all(torch.equal(value.float(), before[name].float()) for name, value in stored.state_dict().items())
        assert torch.equal(run(stored), plain)
        assert not torch.allclose(run(by_hand), plain, atol=1e-3)


@pytest.mark.parametrize(
    ("device", "submodel", "setting", "stored"),
    [
        ("cuda", SubModelType.UNet, True, True),
        ("cuda", SubModelType.Transformer2, True, True),
        ("cuda", None, True, True),
        ("cuda", SubModelType.UNet, False, False),
        ("cuda", SubModelType.UNet, None, False),
        ("cuda", SubModelType.VAE, True, False),
        ("cuda", SubModelType.TextEncoder, True, False),
        ("cpu", SubModelType.UNet, True, False),
        ("mps", SubModelType.UNet, True, False),
        ("xpu", SubModelType.UNet, True, False),
    ],
)
def test_which_submodels_are_stored_in_8_bits(
    device: str, submodel: SubModelType | None, setting: bool | None, stored: bool
):
    """Torch here has no XPU, so its probe fails."""
    config = SimpleNamespace(default_settings=SimpleNamespace(fp8_storage=setting))
    assert fp8.is_stored(config, submodel, torch.device(device)) == stored


def test_records_without_default_settings_are_stored_in_full_precision():
    for config in (
        SimpleNamespace(),
        SimpleNamespace(default_settings=None),
        SimpleNamespace(default_settings=object()),
    ):
        assert not fp8.is_stored(config, SubModelType.UNet, torch.device("cuda"))


def test_the_cache_keeps_fp8_and_full_models_apart(
    model_cache: ModelCache, sd1_record: SimpleNamespace, sd1_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fp8, "is_supported", lambda _: True)

    def load(fp8_storage: bool, part: SubModelType = SubModelType.UNet) -> Any:
        changes = {"default_settings": SimpleNamespace(fp8_storage=fp8_storage)}
        return loaders.load(model_cache, SimpleNamespace(**vars(sd1_record) | changes), sd1_folder, part).model

    plain, small = load(False), load(True)
    assert (plain.conv_in.weight.dtype, small.conv_in.weight.dtype) == (torch.float32, torch.float8_e4m3fn)
    assert load(False) is plain
    assert load(True) is small
    assert load(True, SubModelType.TextEncoder) is load(False, SubModelType.TextEncoder)
    assert model_cache.drop("tiny") == 3
