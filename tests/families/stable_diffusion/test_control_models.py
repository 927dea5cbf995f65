"""ControlNets and T2I-Adapters from folders and single files, and files that are damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import loaders
from invokeclone.engine.loading.files import read_json
from invokeclone.families.stable_diffusion import control_models, single_files
from invokeclone.families.stable_diffusion.control_models import UnusableModel
from invokeclone.families.stable_diffusion.sizes import network_config
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from tests.families.stable_diffusion.test_controlnet import make_net
from tests.families.stable_diffusion.test_t2i_adapter import make_net as make_adapter
from tests.tiny_checkpoints import UNET_PREFIX, _unet_name, same_weights

SIZE_EMBEDDING = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}
PUBLISHED: dict[BaseModelType, dict[str, Any]] = {
    BaseModelType.StableDiffusion1: {"cross_attention_dim": 768},
    BaseModelType.StableDiffusion2: {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    BaseModelType.StableDiffusionXL: {
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
"""The sizes of the published networks."""


def original_name(name: str) -> str:
    """Return the name of a ControlNet's tensor in the original layout."""
    block, _, rest = name.partition(".")
    number, _, last = rest.partition(".")
    if block == "controlnet_down_blocks":
        return f"zero_convs.{number}.0.{last}"
    if block == "controlnet_mid_block":
        return f"middle_block_out.0.{rest}"
    if block == "controlnet_cond_embedding":
        layer, _, kind = rest.rpartition(".")
        numbers = {"conv_in": 0, "conv_out": 14}
        return f"input_hint_block.{numbers.get(layer, 2 * (int(layer[-1]) + 1) if layer[-1].isdigit() else 0)}.{kind}"
    return _unet_name(name).removeprefix(UNET_PREFIX)


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Return a folder with what the tensors of the tiny networks do not show."""
    file = tmp_path / "configs" / "controlnet" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"attention_head_dim": 2, "norm_num_groups": 4}))
    return file.parents[1]


@pytest.fixture
def load(configs: Path) -> Callable[[Path], Any]:
    return lambda path: control_models.load_controlnet_file(path, torch.float32, configs)


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_file_in_the_original_layout(prefix: str, load: Callable[[Path], Any], tmp_path: Path):
    net = make_net()
    weights = {prefix + original_name(name): value for name, value in net.state_dict().items()}
    other_weights = {"model.diffusion_model.out.2.bias": torch.zeros(4)} if prefix else {}
    loaded = load(save_weights({**weights, **other_weights}, tmp_path / "a.safetensors"))
    assert same_weights(loaded, net)
    assert not loaded.training


def test_a_torch_file(load: Callable[[Path], Any], tmp_path: Path):
    net = make_net()
    weights = {f"control_model.{original_name(name)}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    assert same_weights(load(tmp_path / "a.pth"), net)


@pytest.mark.parametrize("original", [True, False])
def test_sdxl_size_embedding(original: bool, configs: Path, load: Callable[[Path], Any], tmp_path: Path):
    (configs / "controlnet" / "config.json").write_text(
        json.dumps({"attention_head_dim": 2, "norm_num_groups": 4, **SIZE_EMBEDDING})
    )
    net = make_net(0, **SIZE_EMBEDDING, use_linear_projection=True)
    weights = {(original_name(name) if original else name): value for name, value in net.state_dict().items()}
    assert same_weights(load(save_weights(weights, tmp_path / "a.safetensors")), net)


def test_a_file_in_diffusers_layout_computes_the_same(load: Callable[[Path], Any], tmp_path: Path):
    net = make_net(0, layers_per_block=2, block_out_channels=[8, 16], transformer_layers_per_block=[1, 2])
    loaded = load(save_weights(net.state_dict(), tmp_path / "a.safetensors"))
    inputs = torch.ones(1, 4, 8, 8), 5, torch.ones(1, 7, 32), torch.ones(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(*inputs, return_dict=False)[1], net(*inputs, return_dict=False)[1])


@pytest.mark.parametrize("base", PUBLISHED)
def test_network_sizes_are_derived_from_the_tensors(base: BaseModelType):
    from diffusers.models.controlnets.controlnet import ControlNetModel

    published = read_json(single_files.configs_of(base) / "controlnet" / "config.json")
    with torch.device("meta"):
        net = ControlNetModel(**PUBLISHED[base])
        weights = net.state_dict()
        config = network_config(weights, published) | control_models._image_sizes(weights)
        again = ControlNetModel.from_config(config)
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (net, again)]
    assert shapes[0] == shapes[1]
    assert config["attention_head_dim"] == PUBLISHED[base].get("attention_head_dim", 8)


def test_loaders_are_found_by_record(
    model_cache: ModelCache, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(single_files, "configs_of", lambda _base: configs)
    net, adapter = make_net(), make_adapter()
    net.save_pretrained(tmp_path / "net")
    adapter.save_pretrained(tmp_path / "adapter")
    save_weights(net.state_dict(), tmp_path / "net.safetensors")
    kinds = (
        (net, "net", ModelType.ControlNet, ModelFormat.Diffusers),
        (net, "net.safetensors", ModelType.ControlNet, ModelFormat.Checkpoint),
        (adapter, "adapter", ModelType.T2IAdapter, ModelFormat.Diffusers),
    )
    for expected, name, kind, form in kinds:
        for base in PUBLISHED:
            record = SimpleNamespace(key=f"{name}{base}", name=name, base=base, type=kind, format=form)
            loaded = loaders.load(model_cache, record, tmp_path / name).model
            assert same_weights(loaded, expected)
            assert not loaded.training


def damage(weights: dict[str, torch.Tensor], how: str, path: Path) -> None:
    """Write the weights to `path`, damaged."""
    weights = dict(weights)
    name = next(name for name in weights if name.endswith(("conv1.weight", "block1.weight")))
    if how == "nan":
        weights[name] = weights[name].clone().fill_(torch.nan)
    if how == "missing":
        del weights[name]
    save_weights(weights, path)
    if how == "short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if how == "empty":
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["nan", "missing", "short", "empty"])
def test_damaged_single_files(how: str, load: Callable[[Path], Any], tmp_path: Path):
    damage(make_net().state_dict(), how, tmp_path / "broken.safetensors")
    with pytest.raises(UnusableModel, match=r"broken\.safetensors .*install it again"):
        load(tmp_path / "broken.safetensors")


def test_a_truncated_torch_file(load: Callable[[Path], Any], tmp_path: Path):
    torch.save(make_net().state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "short.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(UnusableModel, match=r"short\.pth .*install it again"):
        load(tmp_path / "short.pth")


def test_a_file_of_another_model_type(load: Callable[[Path], Any], tmp_path: Path):
    with pytest.raises(UnusableModel, match=r"a\.safetensors holds no ControlNet"):
        load(save_weights({"down_blocks.0.weight": torch.zeros(1)}, tmp_path / "a.safetensors"))


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter"])
@pytest.mark.parametrize("how", ["nan", "missing", "short"])
def test_damaged_folders(how: str, kind: str, tmp_path: Path):
    folder = tmp_path / "broken"
    net = make_net() if kind == "controlnet" else make_adapter()
    net.save_pretrained(folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    damage(load_file(file), how, file)
    loader = {
        "controlnet": control_models.load_controlnet_folder,
        "t2i_adapter": control_models.load_t2i_adapter_folder,
    }[kind]
    with pytest.raises(UnusableModel, match=r"broken .*install it again"):
        loader(folder, torch.float32)
