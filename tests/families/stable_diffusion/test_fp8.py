"""Runs with a UNet and a ControlNet whose weights are stored in 8 bits, as their records' settings ask."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from PIL import Image
from torch import nn

from invokeclone.components.control.fields import ControlField
from invokeclone.engine import fp8
from invokeclone.graph.vocabulary.fields import ImageField
from invokeclone.graph.vocabulary.model_fields import LoRAField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import latents_of
from tests.families.stable_diffusion.library import Library
from tests.tiny_models import make_unet, noise_of

SMALL = SimpleNamespace(fp8_storage=True, preprocessor=None)


def round_to_fp8(model: Any) -> Any:
    """Return the model with the weights of its large layers rounded to 8 bits."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding) and "norm" not in name:
            for parameter in module.parameters():
                parameter.data = parameter.data.to(torch.float8_e4m3fn).float()
    return model


@pytest.fixture
def library(context: FakeContext) -> Library:
    context.models = Library(context.models)
    return context.models


@pytest.fixture
def controlnet(tmp_path: Path, context: FakeContext, library: Library) -> ControlField:
    torch.manual_seed(4)
    net = ControlNetModel.from_unet(make_unet(), conditioning_embedding_out_channels=(4, 8, 8, 16))
    for weight in net.parameters():
        weight.data += 0.05 * torch.randn(weight.shape)
    round_to_fp8(net).save_pretrained(tmp_path / "net")
    facts = {"base": BaseModelType.StableDiffusion1, "type": ModelType.ControlNet, "format": ModelFormat.Diffusers}
    model = library.add("net", tmp_path / "net", **facts)
    name = context.images.save(Image.radial_gradient("L").resize((64, 48))).image_name
    return ControlField(image=ImageField(image_name=name), control_model=model)


@pytest.fixture
def lora(tmp_path: Path, library: Library) -> LoRAField:
    from safetensors.torch import save_file

    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{layer}.lora_up.weight": noise_of(1, 16, 2), f"{layer}.lora_down.weight": noise_of(2, 2, 32)}
    save_file(tensors, tmp_path / "style.safetensors")
    facts = {"base": BaseModelType.StableDiffusion1, "type": ModelType.LoRA, "format": ModelFormat.LyCORIS}
    return LoRAField(lora=library.add("style", tmp_path / "style.safetensors", **facts), weight=0.5)


def set_storage(library: Library, settings: Any) -> None:
    """Set the records' default settings of the main model and of the ControlNet."""
    library.record = SimpleNamespace(**vars(library.record) | {"default_settings": settings})
    library.others["net"].default_settings = settings


def test_lora_and_controlnet_runs_match_rounded_weights(
    context: FakeContext,
    denoise_node: Any,
    library: Library,
    controlnet: ControlField,
    lora: LoRAField,
    monkeypatch: pytest.MonkeyPatch,
):
    """The ControlNet's files hold weights that 8 bits represent, so with it in 8 bits nothing but the UNet's differ."""
    monkeypatch.setattr(fp8, "is_supported", lambda _: True)
    plain_node = denoise_node()
    unet_field = plain_node.unet.model_copy(update={"loras": [lora]})

    def run() -> torch.Tensor:
        return latents_of(context, denoise_node(control=controlnet, unet=unet_field).invoke(context))

    in_full = run()
    entry = context.models.cache.get("tiny:unet", lambda: pytest.fail("it is loaded"))
    monkeypatch.setattr(entry, "model", round_to_fp8(make_unet()))
    expected = run()
    set_storage(library, SMALL)
    result = run()
    assert {"tiny:unet:fp8", "net:fp8"} <= set(context.models.cache.keys())
    small = context.models.cache.get("tiny:unet:fp8", lambda: pytest.fail("it is loaded")).model
    weights = {name: value.float() for name, value in small.state_dict().items()}
    assert torch.allclose(result, expected, atol=1e-4)
    assert not torch.allclose(result, in_full, atol=1e-2)
    assert torch.equal(run(), result)
    assert all(torch.equal(value.float(), weights[name]) for name, value in small.state_dict().items())
    assert small.conv_in.weight.dtype == torch.float8_e4m3fn
    assert not any(module._forward_hooks for module in small.modules())


@pytest.mark.parametrize("changes", [{"seamless_axes": ["x", "y"]}, {"freeu_config": True}])
def test_other_unet_modifications_work_in_8_bits(
    context: FakeContext, denoise_node: Any, library: Library, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    from invokeclone.families.stable_diffusion.fields import FreeUConfig

    monkeypatch.setattr(fp8, "is_supported", lambda _: True)
    if "freeu_config" in changes:
        changes = {"freeu_config": FreeUConfig(s1=0.9, s2=0.2, b1=1.2, b2=1.4)}
    unet = denoise_node().unet.model_copy(update=changes)
    library.record = SimpleNamespace(**vars(library.record) | {"default_settings": SMALL})
    result = latents_of(context, denoise_node(unet=unet).invoke(context))
    plain = latents_of(context, denoise_node().invoke(context))
    library.record = SimpleNamespace(**vars(library.record) | {"default_settings": None})
    denoise_node().invoke(context)
    entry = context.models.cache.get("tiny:unet", lambda: pytest.fail("it is loaded"))
    monkeypatch.setattr(entry, "model", round_to_fp8(make_unet()))
    assert torch.allclose(latents_of(context, denoise_node(unet=unet).invoke(context)), result, atol=1e-4)
    assert not torch.allclose(result, plain, atol=1e-3)
