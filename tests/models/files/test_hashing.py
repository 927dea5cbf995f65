"""Hashes."""

import hashlib
from typing import get_args

import pytest
from blake3 import blake3

from invokeclone.kit.config.settings import Settings
from invokeclone.models.errors import InstallCancelled
from invokeclone.models.files.hashing import hash_model
from invokeclone.models.files.model_files import ModelFiles

ALGORITHMS = get_args(Settings.model_fields["hashing_algorithm"].annotation)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_of_the_setting(make, algorithm):
    path = make.checkpoint()
    model_hash = hash_model(ModelFiles(path), algorithm)
    name, _, digest = model_hash.partition(":")
    assert name == ("blake3" if algorithm.startswith("blake3") else algorithm)
    assert int(digest, 16) >= 0
    if algorithm == "sha256":
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    if name == "blake3":
        assert digest == blake3(path.read_bytes()).hexdigest()
    assert (hash_model(ModelFiles(path), algorithm) == model_hash) == (algorithm != "random")


def test_a_folder_is_the_hash_of_its_weights_hashes(make):
    folder = make.pipeline()
    make.tensors("pipeline/vae/a.safetensors", {"x": (1,)})
    files = [folder / "unet/diffusion_pytorch_model.safetensors", folder / "vae/a.safetensors"]
    together = "".join(blake3(file.read_bytes()).hexdigest() for file in files)
    before = hash_model(ModelFiles(folder), "blake3_single")
    assert before == f"blake3:{blake3(together.encode()).hexdigest()}"
    make.json("pipeline/more.json", {})
    assert hash_model(ModelFiles(folder), "blake3_multi") == before


def test_hashing_can_be_canceled(make):
    with pytest.raises(InstallCancelled):
        hash_model(ModelFiles(make.checkpoint()), "blake3_single", lambda: True)
