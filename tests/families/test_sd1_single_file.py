"""Single-file checkpoints: a tiny one in the original's names gives the same networks; CLIP's vocabulary is the right one."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine import loaders
from invokeclone.engine.cache import ModelCache
from invokeclone.families.sd1 import single_file
from invokeclone.graph.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.settings import Settings


def unet_name(name: str) -> str:
    """Return the original's name of a weight of the tiny UNet: two levels of one layer."""
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    resnet |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    places = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
        "up_blocks.1.resnets.0": "output_blocks.2.0",
        "up_blocks.1.resnets.1": "output_blocks.3.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for ours, theirs in places.items():
        if name.startswith(f"{ours}."):
            rest = name.removeprefix(f"{ours}.")
            first, _, last = rest.partition(".")
            if "resnets" in ours:
                rest = f"{resnet[first]}.{last}"
            return f"{single_file.UNET_PREFIX}{theirs}.{rest}"
    raise AssertionError(name)


def vae_name(name: str) -> str:
    """Return the original's name of a weight of the tiny autoencoder."""
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    if "mid.attn_1" in name:
        for ours, theirs in {
            "group_norm": "norm",
            "to_q": "q",
            "to_k": "k",
            "to_v": "v",
            "to_out.0": "proj_out",
        }.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    return single_file.VAE_PREFIX + name


@pytest.fixture(scope="module")
def checkpoint(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {unet_name(name): value for name, value in parts["unet"].state_dict().items()}
    for name, value in parts["vae"].state_dict().items():
        is_attention = "attentions" in name and "to_" in name and name.endswith("weight")
        weights[vae_name(name)] = value[..., None, None] if is_attention else value
    for name, value in parts["text_encoder"].state_dict().items():
        weights[f"{single_file.TEXT_PREFIX}text_model.{name}"] = value
    weights[f"{single_file.TEXT_PREFIX}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


@pytest.fixture(scope="module")
def configs(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    for name in ("unet", "vae", "text_encoder"):
        parts[name].save_config(folder / name) if name != "text_encoder" else parts[name].config.save_pretrained(
            folder / name
        )
    return folder


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder"])
def test_the_networks_come_out_as_they_went_in(name: str, checkpoint: Path, configs: Path, parts: dict[str, Any]):
    assert same(getattr(single_file, name)(checkpoint, torch.float32, configs), parts[name])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_read_without_code(
    checkpoint: Path, configs: Path, parts: dict[str, Any], tmp_path: Path, zipped: bool
):
    from safetensors.torch import load_file

    path = tmp_path / "tiny.ckpt"
    torch.save({"state_dict": load_file(checkpoint)}, path, _use_new_zipfile_serialization=zipped)
    assert same(single_file.vae(path, torch.float32, configs), parts["vae"])


def test_an_autoencoder_in_a_file_of_its_own(checkpoint: Path, configs: Path, parts: dict[str, Any], tmp_path: Path):
    weights = single_file.read(checkpoint, [single_file.VAE_PREFIX])
    path = tmp_path / "vae.safetensors"
    save_file({name.removeprefix(single_file.VAE_PREFIX): value for name, value in weights.items()}, path)
    assert same(single_file.vae(path, torch.float32, configs), parts["vae"])


def test_a_file_without_the_part_is_named(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "empty.safetensors"
    save_file({"nothing": torch.zeros(1)}, path)
    for load in (single_file.unet, single_file.vae, single_file.text_encoder):
        with pytest.raises(ValueError, match="does not hold this part"):
            load(path, torch.float32)


def test_the_configurations_are_those_of_stable_diffusion_1():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    def count(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    def config(name: str) -> dict[str, Any]:
        return json.loads((single_file.FOLDER / name / "config.json").read_text())

    with torch.device("meta"):
        assert count(UNet2DConditionModel.from_config(config("unet"))) == 859_520_964
        assert count(AutoencoderKL.from_config(config("vae"))) == 83_653_863
        assert count(CLIPTextModel(CLIPTextConfig(**config("text_encoder")))) == 123_060_480


def test_the_tokenizer_is_clips():
    tokenizer = single_file.tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer.model_max_length == 77
    photo = tokenizer("a photo of a cat")["input_ids"]
    assert photo == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer("", padding="max_length")["input_ids"]
    assert padded == [49406] + [49407] * 76


def test_a_checkpoint_record_loads_tokenizer_and_scheduler(checkpoint: Path, tmp_path: Path):
    record = SimpleNamespace(
        key="c",
        name="tiny",
        base=BaseModelType.StableDiffusion1,
        type=ModelType.Main,
        format=ModelFormat.Checkpoint,
        prediction_type="v_prediction",
    )
    cache = ModelCache(Settings(root=tmp_path), "cpu")
    scheduler = loaders.load(cache, record, checkpoint, SubModelType.Scheduler).model
    assert scheduler.config.prediction_type == "v_prediction"
    assert loaders.load(cache, record, checkpoint, SubModelType.Tokenizer).model.model_max_length == 77
    with pytest.raises(ValueError, match="no part"):
        loaders.load(cache, record, checkpoint, SubModelType.Transformer)
