"""FLUX.2 in single files: names, quantization, sizes; its autoencoder in a file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.autoencoders.kl_flux2 import to_diffusers_names
from invokeclone.components.flux.single_files import PREFIXES
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.quantized.packed import PackedLinear
from invokeclone.families.flux2 import load, single_files
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings
from tests.quantized_files import write_gguf
from tests.tiny_transformers import FLUX2_TRANSFORMER, make_flux2_transformer, make_flux2_vae, original_flux2_names

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def transformer() -> Any:
    return make_flux2_transformer()


@pytest.fixture(scope="module")
def original(transformer: Any) -> Tensors:
    return original_flux2_names(transformer.state_dict())


def request(path: Path, part: SubModelType | None = None, precision: str = "float32") -> LoadRequest:
    settings = Settings(root=path.parent, precision=precision)
    return LoadRequest(SimpleNamespace(name=path.stem), path, part, torch.float32, torch.device("cpu"), settings)


def saved(folder: Path, tensors: Tensors) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "file.safetensors")
    return folder / "file.safetensors"


def assert_same(loaded: Any, expected: Any) -> None:
    stored = loaded.state_dict()
    assert stored.keys() == expected.state_dict().keys()
    assert all(torch.equal(stored[name], value.to(stored[name])) for name, value in expected.state_dict().items())


def test_names_are_those_of_diffusers_converter(original: Tensors) -> None:
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers

    ours = single_files.NAMES.to_diffusers(original)
    theirs = convert_flux2_transformer_checkpoint_to_diffusers(dict(original))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_original_names(prefix: str, original: Tensors, transformer: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, {f"{prefix}{name}": tensor for name, tensor in original.items()})
    loaded = load.load_checkpoint(request(path, SubModelType.Transformer))
    assert_same(loaded, transformer)
    config = {name: loaded.config[name] for name in FLUX2_TRANSFORMER}
    assert config == FLUX2_TRANSFORMER
    assert not loaded.training


def test_dev_models_have_guidance(tmp_path: Path) -> None:
    dev = make_flux2_transformer(guidance_embeds=True, mlp_ratio=2.0)
    assert_same(load.load_checkpoint(request(saved(tmp_path, original_flux2_names(dev.state_dict())))), dev)


def test_gguf_files_stay_quantized(tmp_path: Path) -> None:
    large = make_flux2_transformer(attention_head_dim=32, joint_attention_dim=64, axes_dims_rope=(8, 8, 8, 8))
    write_gguf(tmp_path / "a.gguf", original_flux2_names(large.state_dict()), "Q8_0")
    loaded = load.load_checkpoint(request(tmp_path / "a.gguf"))
    assert isinstance(loaded.transformer_blocks[1].attn.to_k, PackedLinear)
    assert isinstance(loaded.single_transformer_blocks[1].attn.to_qkv_mlp_proj, PackedLinear)
    for name, linear in large.named_modules():
        if isinstance(linear, torch.nn.Linear):
            packed = loaded.get_submodule(name)
            weight = packed.decode(torch.float32) if isinstance(packed, PackedLinear) else packed.weight.float()
            torch.testing.assert_close(weight, linear.weight, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("scale", [torch.tensor(0.02), torch.linspace(0.01, 0.03, 96)])
def test_scales_of_8_bit_weights_apply(scale: torch.Tensor, original: Tensors, tmp_path: Path) -> None:
    name = "double_blocks.1.img_attn.qkv.weight"
    factor = scale if scale.ndim == 0 else scale[:, None]
    stored = {
        **original,
        name: (original[name] / factor).to(torch.float8_e4m3fn),
        f"{name}_scale": scale,
        name.replace(".weight", ".input_scale"): torch.tensor(1.0),
    }
    loaded = load.load_checkpoint(request(saved(tmp_path, stored)))
    attention = loaded.transformer_blocks[1].attn
    weights = torch.cat([layer.dense_weight() for layer in (attention.to_q, attention.to_k, attention.to_v)])
    torch.testing.assert_close(weights, original[name], atol=0.02, rtol=0.08)


@pytest.mark.parametrize("name", ["single_blocks.1.linear1.weight", "img_in.weight"])
def test_a_missing_tensor_is_named(name: str, original: Tensors, tmp_path: Path) -> None:
    path = saved(tmp_path, {key: value for key, value in original.items() if key != name})
    with pytest.raises(ValueError, match="incomplete transformer"):
        load.load_checkpoint(request(path))


def test_other_parts_are_not_in_the_file(original: Tensors, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no part"):
        load.load_checkpoint(request(saved(tmp_path, original), SubModelType.VAE))


def original_vae_names(vae: Any) -> Tensors:
    """Return an autoencoder's tensors with Black Forest Labs' names."""
    attention = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"}
    named = {}
    for name, value in vae.state_dict().items():
        side, _, rest = name.partition(".")
        new, tensor = name, value
        match rest.split("."):
            case ["down_blocks", level, "resnets", number, *ending]:
                new = f"{side}.down.{level}.block.{number}.{'.'.join(ending)}"
            case ["down_blocks", level, _, _, "conv", kind]:
                new = f"{side}.down.{level}.downsample.conv.{kind}"
            case ["up_blocks", level, "resnets", number, *ending]:
                new = f"{side}.up.{3 - int(level)}.block.{number}.{'.'.join(ending)}"
            case ["up_blocks", level, _, _, "conv", kind]:
                new = f"{side}.up.{3 - int(level)}.upsample.conv.{kind}"
            case ["mid_block", "resnets", number, *ending]:
                new = f"{side}.mid.block_{int(number) + 1}.{'.'.join(ending)}"
            case ["mid_block", "attentions", _, *layer, kind]:
                new = f"{side}.mid.attn_1.{attention['.'.join(layer)]}.{kind}"
                tensor = value[..., None, None] if value.ndim == 2 else value
        owner = {"quant_conv": "encoder.", "post_quant_conv": "decoder."}.get(side, "")
        named[owner + new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")] = tensor
    return named


@pytest.mark.parametrize("is_original", [True, False])
@pytest.mark.parametrize("decoder", [None, (4, 8, 16, 16)])
def test_the_autoencoder_in_a_file(is_original: bool, decoder: tuple[int, ...] | None, tmp_path: Path) -> None:
    vae = make_flux2_vae(decoder_block_out_channels=decoder)
    path = saved(tmp_path, original_vae_names(vae) if is_original else vae.state_dict())
    loaded = load.load_vae_file(request(path, precision="auto"))
    assert loaded.dtype == torch.float32
    assert_same(loaded, vae)
    assert loaded.config.norm_num_groups == 8 if decoder is None else 4


def test_a_missing_tensor_of_the_autoencoder_is_named(tmp_path: Path) -> None:
    tensors = original_vae_names(make_flux2_vae())
    for name in ("bn.running_var", "encoder.conv_in.weight"):
        path = saved(tmp_path, {key: value for key, value in tensors.items() if key != name})
        with pytest.raises(ValueError, match="incomplete autoencoder"):
            load.load_vae_file(request(path))
    assert to_diffusers_names({"bn.running_var": tensors["bn.running_var"]}).keys() == {"bn.running_var"}
