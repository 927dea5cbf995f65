"""Parts of model folders: whose classes are used, and which of several weight files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.loading import files
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.vocabulary.taxonomy import ModelRepoVariant, SubModelType
from invokeclone.kit.config.settings import Settings
from tests.tiny_models import make_vae

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    index = {"vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"], "none": [None, None]}
    index["unet"] = ["my_module", "MyUNet"]
    (tmp_path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return tmp_path


def request(folder: Path, part: str, variant: Any = None) -> LoadRequest:
    config = SimpleNamespace(name="tiny", repo_variant=variant)
    return LoadRequest(config, folder, SubModelType(part), torch.float32, CPU, Settings(root=folder))


def save_vae(folder: Path, value: float, variant: str | None = None, *, safe: bool = True) -> None:
    """Save an autoencoder that is known by a bias."""
    vae = make_vae()
    vae.decoder.conv_in.bias.data.fill_(value)
    vae.save_pretrained(folder / "vae", variant=variant, safe_serialization=safe)


def load_value(folder: Path, variant: Any = None) -> float:
    vae = files.load_part(request(folder, "vae", variant))
    assert not vae.training
    return float(vae.decoder.conv_in.bias.detach()[0])


def test_a_part_has_the_class_that_the_index_names(folder: Path):
    save_vae(folder, 1.0)
    vae = files.load_part(request(folder, "vae"))
    assert type(vae).__name__ == "AutoencoderKL"
    assert vae.dtype == torch.float32
    assert files.load_part(request(folder, "vae"), dtype=torch.bfloat16).dtype == torch.bfloat16
    (folder / "model_index.json").unlink()
    assert type(files.load_part(request(folder, "vae"), "diffusers.AutoencoderKL")).__name__ == "AutoencoderKL"


def test_scheduler_config_tracks_default_values(folder: Path):
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"num_train_timesteps": 500}', encoding="utf-8")
    scheduler = files.load_part(request(folder, "scheduler"))
    assert type(scheduler).__name__ == "DDIMScheduler"
    assert scheduler.config.num_train_timesteps == 500
    assert "timestep_spacing" in scheduler.config["_use_default_values"]


def test_model_code_is_not_run(folder: Path):
    with pytest.raises(ValueError, match="no loadable part 'unet'"):
        files.load_part(request(folder, "unet"), "diffusers.UNet2DConditionModel")
    with pytest.raises(ValueError, match="no loadable part 'text_encoder'"):
        files.load_part(request(folder, "text_encoder"))


@pytest.mark.parametrize(
    ("present", "variant", "value"),
    [
        (["", "fp16"], None, 0.0),
        (["", "fp16"], ModelRepoVariant.Default, 0.0),
        (["", "fp16"], ModelRepoVariant.FP16, 1.0),
        ([""], ModelRepoVariant.FP16, 0.0),
        (["fp16"], ModelRepoVariant.Default, 1.0),
        (["fp16"], None, 1.0),
        (["fp16", "ema"], ModelRepoVariant.FP32, 2.0),
    ],
)
def test_weights_of_the_recorded_variant_are_preferred(
    folder: Path, present: list[str], variant: ModelRepoVariant | None, value: float
):
    for name, number in (("", 0.0), ("fp16", 1.0), ("ema", 2.0)):
        if name in present:
            save_vae(folder, number, name or None)
    assert load_value(folder, variant) == value


def test_torch_files_beside_safetensors_are_ignored(folder: Path):
    save_vae(folder, 1.0, safe=False)
    assert load_value(folder) == 1.0
    save_vae(folder, 2.0, "fp16")
    assert load_value(folder) == 2.0


def test_only_tensors_with_the_prefixes_are_read(tmp_path: Path):
    weights = {"a.x": torch.ones(1), "b.x": torch.zeros(1), "c": torch.ones(2)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "w.ckpt")
    for name in ("w.safetensors", "w.ckpt"):
        assert set(files.read_tensors(tmp_path / name, ["a.", "c"])) == {"a.x", "c"}
        assert set(files.read_tensors(tmp_path / name)) == set(weights)
