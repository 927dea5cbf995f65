"""Autoencoders from single files and folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invokeclone.components.autoencoders import load
from invokeclone.engine.loading.files import read_tensors
from tests.tiny_checkpoints import same_weights


def test_load_from_a_full_model_checkpoint(sd1_checkpoint: Path, sd1_configs: Path, sd1_parts: dict[str, Any]):
    vae = load.load_kl_file(sd1_checkpoint, torch.float32, sd1_configs)
    assert same_weights(vae, sd1_parts["vae"])
    assert not vae.training
    assert load.load_kl_file(sd1_checkpoint, torch.bfloat16, sd1_configs).dtype == torch.bfloat16


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_without_running_code(
    sd1_checkpoint: Path, sd1_configs: Path, sd1_parts: dict[str, Any], tmp_path: Path, zipped: bool
):
    path = tmp_path / "tiny.ckpt"
    torch.save({"state_dict": load_file(sd1_checkpoint)}, path, _use_new_zipfile_serialization=zipped)
    assert same_weights(load.load_kl_file(path, torch.float32, sd1_configs), sd1_parts["vae"])


def test_load_from_a_standalone_vae_file(
    sd1_checkpoint: Path, sd1_configs: Path, sd1_parts: dict[str, Any], tmp_path: Path
):
    weights = read_tensors(sd1_checkpoint, [load.PREFIX])
    path = tmp_path / "vae.safetensors"
    save_file({name.removeprefix(load.PREFIX): value for name, value in weights.items()}, path)
    assert same_weights(load.load_kl_file(path, torch.float32, sd1_configs), sd1_parts["vae"])


def test_a_file_without_an_autoencoder_is_refused(sd1_configs: Path, tmp_path: Path):
    save_file({"nothing": torch.zeros(1)}, tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match=r"empty\.safetensors holds no autoencoder"):
        load.load_kl_file(tmp_path / "empty.safetensors", torch.float32, sd1_configs)


def test_load_from_a_folder(sd1_folder: Path, sd1_parts: dict[str, Any]):
    assert same_weights(load.load_kl_folder(sd1_folder / "vae", torch.float32), sd1_parts["vae"])
    assert load.load_kl_folder(sd1_folder / "vae", torch.float16).dtype == torch.float16


def test_load_a_tiny_autoencoder_folder(tmp_path: Path):
    from diffusers import AutoencoderTiny

    channels = {"encoder_block_out_channels": (4, 4), "decoder_block_out_channels": (4, 4)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    AutoencoderTiny(**channels, **blocks).save_pretrained(tmp_path)
    assert isinstance(load.load_kl_folder(tmp_path, torch.float32), AutoencoderTiny)
