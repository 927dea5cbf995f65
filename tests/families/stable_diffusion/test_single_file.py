"""Single files of Stable Diffusion 1: a tiny one with the published names gives the networks that it was made of."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import loaders
from invokeclone.families.stable_diffusion import single_files
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from tests.tiny_checkpoints import same_weights, unet_weights
from tests.tiny_models import make_unet


@pytest.fixture
def record() -> SimpleNamespace:
    return SimpleNamespace(
        key="c",
        name="tiny",
        base=BaseModelType.StableDiffusion1,
        type=ModelType.Main,
        format=ModelFormat.Checkpoint,
        prediction_type="v_prediction",
    )


def test_the_unet(sd1_checkpoint: Path, sd1_configs: Path, sd1_parts: dict[str, Any]):
    unet = single_files.load_unet_file(sd1_checkpoint, torch.float32, sd1_configs)
    assert same_weights(unet, sd1_parts["unet"])
    assert not unet.training


def test_inpainting_unets_are_detected_by_their_first_weight(sd1_configs: Path, tmp_path: Path):
    unet = make_unet(in_channels=9)
    save_file(unet_weights(unet), tmp_path / "inpainting.safetensors")
    loaded = single_files.load_unet_file(tmp_path / "inpainting.safetensors", torch.float32, sd1_configs)
    assert loaded.config.in_channels == 9
    assert same_weights(loaded, unet)


def test_a_file_without_a_unet(sd1_configs: Path, tmp_path: Path):
    save_file({"nothing": torch.zeros(1)}, tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match=r"empty\.safetensors holds no UNet"):
        single_files.load_unet_file(tmp_path / "empty.safetensors", torch.float32, sd1_configs)


def test_every_part_is_loaded_through_the_record(
    sd1_checkpoint: Path,
    sd1_configs: Path,
    sd1_parts: dict[str, Any],
    record: SimpleNamespace,
    model_cache: ModelCache,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(single_files, "configs_of", lambda _: sd1_configs)
    for name in (SubModelType.UNet, SubModelType.VAE, SubModelType.TextEncoder):
        assert same_weights(loaders.load(model_cache, record, sd1_checkpoint, name).model, sd1_parts[name])


def test_tokenizer_and_scheduler_match_the_published_model(
    sd1_checkpoint: Path, record: SimpleNamespace, model_cache: ModelCache
):
    scheduler = loaders.load(model_cache, record, sd1_checkpoint, SubModelType.Scheduler).model
    assert type(scheduler).__name__ == "PNDMScheduler"
    assert "timestep_spacing" in scheduler.config["_use_default_values"], "the published file does not state it"
    published = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "clip_sample": False,
    }
    assert {name: scheduler.config[name] for name in published} == published
    assert loaders.load(model_cache, record, sd1_checkpoint, SubModelType.Tokenizer).model.model_max_length == 77
    with pytest.raises(ValueError, match="no part"):
        loaders.load(model_cache, record, sd1_checkpoint, SubModelType.Transformer)


def test_configurations_match_stable_diffusion_1():
    """The numbers of weights are well known, and no other sizes of layers give them."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    def count(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    def config(name: str) -> dict[str, Any]:
        return json.loads((single_files.configs_of(BaseModelType.StableDiffusion1) / name / "config.json").read_text())

    with torch.device("meta"):
        assert count(UNet2DConditionModel.from_config(config("unet"))) == 859_520_964
        assert count(AutoencoderKL.from_config(config("vae"))) == 83_653_863
        assert count(CLIPTextModel(CLIPTextConfig(**config("text_encoder")))) == 123_060_480
