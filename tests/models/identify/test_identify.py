"""Which record a file or folder gets."""

import pytest

from invokeclone.models.configs.model_config import Unknown_Config
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.identify import identify

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}


def record(path, *, allow_unknown=True, **fields):
    return identify(ModelFiles(path), FACTS, fields, allow_unknown=allow_unknown)


def test_sd1_pipeline(make):
    config = record(make.pipeline())
    assert type(config).__name__ == "Main_Diffusers_SD1_Config"
    assert config.model_dump(mode="json") == {
        **FACTS,
        "description": None,
        "source_api_response": None,
        "source_url": None,
        "cover_image": None,
        "type": "main",
        "format": "diffusers",
        "base": "sd-1",
        "trigger_phrases": None,
        "repo_variant": "",
        "prediction_type": "v_prediction",
        "variant": "normal",
        "default_settings": {
            "vae": None,
            "vae_precision": None,
            "scheduler": None,
            "steps": None,
            "cfg_scale": None,
            "cfg_rescale_multiplier": None,
            "width": 512,
            "height": 512,
            "guidance": None,
            "cpu_only": None,
            "fp8_storage": None,
        },
    }


def test_fp16_weights_and_inpainting(make):
    folder = make.pipeline(in_channels=9)
    make.tensors("pipeline/vae/diffusion_pytorch_model.fp16.safetensors", {"x": (1,)})
    make.json("pipeline/scheduler/scheduler_config.json", {})
    config = record(folder)
    assert (config.repo_variant, config.variant, config.prediction_type) == ("fp16", "inpaint", "epsilon")


@pytest.mark.parametrize(("channels", "variant"), [(4, "normal"), (5, "depth"), (9, "inpaint")])
def test_sd1_checkpoint(make, channels, variant):
    config = record(make.checkpoint(channels=channels))
    assert type(config).__name__ == "Main_Checkpoint_SD1_Config"
    assert (config.type, config.format, config.base) == ("main", "checkpoint", "sd-1")
    assert (config.variant, config.prediction_type, config.config_path) == (variant, "epsilon", None)


def test_vae_file_and_folder(make):
    assert type(record(make.vae())).__name__ == "VAE_Checkpoint_SD1_Config"
    assert type(record(make.vae_folder())).__name__ == "VAE_Diffusers_SD1_Config"


@pytest.mark.parametrize(
    "build",
    [
        lambda make: make.checkpoint(channels=8),
        lambda make: make.pipeline(cross_attention_dim=None),
        lambda make: make.vae(channels=17),
        lambda make: make.vae_folder(latent_channels=16),
        lambda make: make.vae_folder(_class_name="AutoencoderOther"),
        lambda make: make.tensors("lora.safetensors", {"lora_unet_x.lora_up.weight": (1, 1)}),
    ],
)
def test_unrecognized_models_are_unknown_or_refused(make, build):
    path = build(make)
    config = record(path)
    assert isinstance(config, Unknown_Config)
    assert (config.type, config.format, config.base) == ("unknown", "unknown", "unknown")
    with pytest.raises(InvalidModel, match="not a model of a known kind"):
        record(path, allow_unknown=False)


def test_a_stated_base_fills_in_missing_information(make):
    folder = make.pipeline(cross_attention_dim=128)
    assert isinstance(record(folder), Unknown_Config)
    config = record(folder, base="sd-1", default_settings={"width": 256, "steps": 20}, trigger_phrases=["a", "b", "a"])
    assert type(config).__name__ == "Main_Diffusers_SD1_Config"
    assert (config.default_settings.width, config.default_settings.height) == (256, None)
    assert config.trigger_phrases == ["a", "b"]


def test_a_stated_base_wins_over_a_guess_by_name(make):
    assert record(make.vae("xl.safetensors"), base="sd-1").base == "sd-1"


@pytest.mark.parametrize(
    "stated",
    [
        {"base": "sdxl"},
        {"type": "vae"},
        {"format": "diffusers"},
        {"cpu_only": True},
        {"variant": "large"},
        {"default_settings": {"weight": 1}},
    ],
)
def test_stated_fields_must_match_the_model(make, stated):
    with pytest.raises(InvalidModel, match="known kind"):
        record(make.checkpoint(), **stated)


def test_a_stated_base_cannot_contradict_the_model(make):
    with pytest.raises(InvalidModel, match="the model's is sd-2"):
        record(make.checkpoint(width=1024), base="sd-1")


def test_stated_fields_override_detected_ones(make):
    config = record(make.checkpoint(), prediction_type="v_prediction", description="mine")
    assert (config.prediction_type, config.description) == ("v_prediction", "mine")


def test_unknown_models_accept_name_and_description(make):
    config = record(make.tensors("x.safetensors", {"x": (1,)}), description="d", type="unknown")
    assert config.description == "d"
