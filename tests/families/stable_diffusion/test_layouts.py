"""Single files and folders of every kind: built tiny, identified, loaded by their records, and computing as what they are made of."""

import copy
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.autoencoders.load import PREFIX as VAE_PREFIX
from invokeclone.components.autoencoders.load import kl_config
from invokeclone.components.clip.load import text_config
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import conversion, loaders
from invokeclone.engine.loading.conversion import CannotConvert, SourceCheckpoint
from invokeclone.engine.loading.files import read_json
from invokeclone.engine.schedules import discrete
from invokeclone.families.stable_diffusion import single_files
from invokeclone.families.stable_diffusion.sizes import unet_config
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, SubModelType
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.identify import identify
from tests.families.stable_diffusion.layouts import KINDS, Kind, Weights, make_parts, original_weights, output_of
from tests.tiny_checkpoints import same_weights, vae_weights
from tests.tiny_models import make_unet, noise_of

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}
PUBLISHED = {
    "sd-1": {"_class_name": "PNDMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False},
    "sd-2": {"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "clip_sample": False},
    "sdxl": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
    "sdxl-refiner": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}

Load = Callable[[Path, str], Any]


@functools.cache
def parts(name: str) -> dict[str, Any]:
    """Return a kind's networks, made once."""
    return make_parts(KINDS[name])


@functools.cache
def sd1_weights() -> Weights:
    return original_weights(KINDS["sd1"], parts("sd1"))


_cached_tokenizer = functools.cache(single_files.tokenizer)


@pytest.fixture(autouse=True)
def tokenizers_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make CLIP's tokenizer, which takes a second, once for all conversions."""
    monkeypatch.setattr(single_files, "tokenizer", _cached_tokenizer)


@pytest.fixture
def load(model_cache: ModelCache) -> Load:
    """Load a part of a file or folder by the record that it is identified as."""
    return lambda path, part: loaders.load(model_cache, record(path), path, SubModelType(part)).model


@functools.cache
def record(path: Path) -> Any:
    return identify(ModelFiles(path), FACTS | {"key": path.name}, {}, allow_unknown=False)


def save_weights(weights: Weights, path: Path) -> Path:
    save_file(weights, path)
    return path


def check_facts(path: Path, kind: Kind) -> None:
    config = record(path)
    facts = (config.base, config.type, config.variant, config.prediction_type)
    assert facts == (kind.base, "main", kind.variant, kind.prediction)


def check_outputs(load: Load, path: Path, networks: dict[str, Any]) -> None:
    for name, part in networks.items():
        loaded = load(path, name)
        assert not loaded.training
        assert torch.allclose(output_of(name, loaded), output_of(name, part), atol=1e-4), name


def round_weights(networks: dict[str, Any], dtype: torch.dtype, *names: str) -> dict[str, Any]:
    """Return networks of which those named have weights that went through a number format."""
    copied = copy.deepcopy(networks)
    for name in names or copied:
        copied[name].to(dtype).to(torch.float32)
    return copied


ALWAYS = ("sd2", "sdxl inpainting", "refiner")
"""Kinds that each run of the tests loads; the others are marked slow, for time."""


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_single_file_and_converted_folder_are_equivalent(name: str, load: Load, tmp_path: Path):
    kind, networks = KINDS[name], parts(name)
    # 1. the single file
    path = save_weights(original_weights(kind, networks), tmp_path / "model.safetensors")
    check_facts(path, kind)
    check_outputs(load, path, networks)
    config = load(path, "scheduler").config
    explicit_config = {key: value for key, value in config.items() if key not in config["_use_default_values"]}
    expected = PUBLISHED[kind.base] | BETAS | ({"rescale_betas_zero_snr": True} if kind.marks else {})
    assert {
        key: ({**explicit_config, "_class_name": type(load(path, "scheduler")).__name__}).get(key) for key in expected
    } == expected
    assert ("timestep_spacing" in explicit_config) == kind.base.startswith("sdxl")
    assert ("rescale_betas_zero_snr" in explicit_config) == bool(kind.marks)
    # 2. the folder
    folder = tmp_path / "folder"
    conversion.convert(BaseModelType(kind.base), SourceCheckpoint(path, torch.float32, kind.prediction), folder)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == kind.pipeline
    check_facts(folder, kind)
    check_outputs(load, folder, networks)
    converted = dict(load(folder, "scheduler").config)
    assert {key: converted.get(key) for key in expected if key != "_class_name"} | {
        "_class_name": type(load(folder, "scheduler")).__name__
    } == expected
    assert converted["prediction_type"] == kind.prediction


def as_half(weights: Weights, path: Path) -> Path:
    return save_weights({name: value.half() for name, value in weights.items()}, path)


def as_bfloat16(weights: Weights, path: Path) -> Path:
    return save_weights({name: value.bfloat16() for name, value in weights.items()}, path)


def with_a_half_unet(weights: Weights, path: Path) -> Path:
    return save_weights(
        {n: v.half() if n.startswith(single_files.UNET_PREFIX) else v for n, v in weights.items()}, path
    )


def with_averages(weights: Weights, path: Path) -> Path:
    """Write a file as training leaves it: beside each of the UNet's weights an average, under a name without dots."""
    averages = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": 2 * value
        for name, value in weights.items()
        if name.startswith(single_files.UNET_PREFIX)
    }
    return save_weights(weights | averages | {"betas": torch.zeros(1000), "model_ema.decay": torch.zeros(())}, path)


def with_older_names_of_clip(weights: Weights, path: Path) -> Path:
    counted = {f"{single_files.SD1_TEXT_PREFIX}embeddings.position_ids": torch.arange(77)[None]}
    renamed = {name.replace(".transformer.text_model.", ".transformer."): value for name, value in weights.items()}
    return save_weights(renamed | counted, path)


def as_torch_file(weights: Weights, path: Path) -> Path:
    torch.save({"state_dict": weights, "global_step": 470000}, path.with_suffix(".ckpt"))
    return path.with_suffix(".ckpt")


def as_bare_torch_file_of_the_older_form(weights: Weights, path: Path) -> Path:
    torch.save(weights, path.with_suffix(".pt"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pt")


def with_notes_of_a_trainer(weights: Weights, path: Path) -> Path:
    """Write a checkpoint as the first ones were published, with an object of a package that is not installed."""
    import numpy as np

    package, module = (ModuleType(name) for name in (TRAINER.partition(".")[0], TRAINER))
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": TRAINER})
    with pytest.MonkeyPatch.context() as patch:
        for name, fake_module in (
            (package.__name__, package),
            (f"{package.__name__}.callbacks", package),
            (TRAINER, module),
        ):
            patch.setitem(sys.modules, name, fake_module)
        notes = {"monitor": "val/loss", "best_model_score": np.float32(0.5), "state": module.ModelCheckpoint()}
        content = {"epoch": 9, "callbacks": {module.ModelCheckpoint: notes}, "state_dict": weights}
        torch.save(content, path.with_suffix(".ckpt"))
    return path.with_suffix(".ckpt")


TRAINER = "pytorch_lightning.callbacks.model_checkpoint"
STORED: dict[Callable[[Weights, Path], Path], Callable[[dict[str, Any]], dict[str, Any]]] = {
    as_half: lambda networks: round_weights(networks, torch.float16),
    as_bfloat16: lambda networks: round_weights(networks, torch.bfloat16),
    with_a_half_unet: lambda networks: round_weights(networks, torch.float16, "unet"),
    with_averages: dict,
    with_older_names_of_clip: dict,
    as_torch_file: dict,
    as_bare_torch_file_of_the_older_form: dict,
    with_notes_of_a_trainer: dict,
}


@pytest.mark.parametrize("store", STORED)
def test_storage_formats_give_the_same_model(store: Callable[[Weights, Path], Path], load: Load, tmp_path: Path):
    path = store(sd1_weights(), tmp_path / "model.safetensors")
    check_facts(path, KINDS["sd1"])
    check_outputs(load, path, STORED[store](parts("sd1")))


def test_ema_weights_are_ignored_as_in_diffusers(sd1_configs: Path, tmp_path: Path):
    """InvokeAI loads single files through diffusers, which takes the UNet's own weights."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    path = with_averages(sd1_weights(), tmp_path / "model.safetensors")
    parts("sd1")["unet"].save_config(tmp_path / "unet")
    reference = UNet2DConditionModel.from_single_file(
        str(path), config=str(tmp_path), subfolder="unet", local_files_only=True
    )
    assert same_weights(reference, parts("sd1")["unet"])


def test_a_file_of_stable_diffusion_2_base_predicts_noise(tmp_path: Path):
    weights = original_weights(KINDS["sd2"], parts("sd2"))
    for step, prediction in ((220000, "epsilon"), (140000, "v_prediction")):
        torch.save({"state_dict": weights, "global_step": step}, tmp_path / f"{step}.ckpt")
        assert record(tmp_path / f"{step}.ckpt").prediction_type == prediction


@pytest.mark.parametrize(
    ("kind", "prefix", "lacking", "message"),
    [
        ("sd1", "first_stage_model.", "vae", "holds no autoencoder .*: select a separate VAE model"),
        ("sd1", "cond_stage_model.", "text_encoder", "holds an incomplete text encoder .*: select a complete file"),
        ("sd2", "cond_stage_model.", "text_encoder", "holds an incomplete text encoder .*: select a complete file"),
        (
            "sdxl",
            "conditioner.embedders.1.",
            "text_encoder_2",
            "holds an incomplete text encoder .*: select a complete file",
        ),
    ],
)
def test_a_file_without_one_part_still_loads_the_others(
    kind: str, prefix: str, lacking: str, message: str, load: Load, tmp_path: Path
):
    weights = {n: v for n, v in original_weights(KINDS[kind], parts(kind)).items() if not n.startswith(prefix)}
    path = save_weights(weights, tmp_path / "model.safetensors")
    check_facts(path, KINDS[kind])
    check_outputs(load, path, {name: part for name, part in parts(kind).items() if name != lacking})
    with pytest.raises(ValueError, match=rf"model\.safetensors {message}"):
        load(path, lacking)
    with pytest.raises(CannotConvert, match=f"cannot read its {lacking}"):
        checkpoint = SourceCheckpoint(path, torch.float32, "epsilon")
        conversion.convert(BaseModelType(KINDS[kind].base), checkpoint, tmp_path / "folder")


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_missing_or_misshapen_tensors_are_refused(part: str, load: Load, tmp_path: Path):
    prefix = {"unet": single_files.UNET_PREFIX, "vae": "first_stage_model."}[part]
    name = {"unet": "middle_block.0.in_layers.2.weight", "vae": "decoder.mid.block_1.conv1.weight"}[part]
    for number, change in enumerate(({}, {f"{prefix}{name}": torch.zeros(3, 3)})):
        weights = {n: v for n, v in sd1_weights().items() if n != f"{prefix}{name}"} | change
        path = save_weights(weights, tmp_path / f"{number}.safetensors")
        with pytest.raises(
            ValueError, match=rf"{number}\.safetensors holds an incomplete .*, download it again: .*conv1"
        ):
            load(path, part)


def test_standalone_vae_in_either_layout(load: Load, tmp_path: Path, model_cache: ModelCache):
    vae = parts("sd1")["vae"]
    original = {n.removeprefix(VAE_PREFIX): v.contiguous().clone() for n, v in vae_weights(vae).items()}
    for name, weights in (("original", original), ("diffusers", vae.state_dict())):
        path = save_weights(weights, tmp_path / f"{name}.safetensors")
        config = record(path)
        assert (config.type, config.base) == ("vae", "sd-1")
        loaded = loaders.load(model_cache, config, path).model
        assert torch.allclose(output_of("vae", loaded), output_of("vae", vae), atol=1e-4)


@pytest.fixture
def mixed_folder(tmp_path: Path) -> Path:
    """Save a folder whose UNet is there in half precision alone, whose autoencoder in full alone, and whose text encoder as both."""
    networks, folder = parts("sd1"), tmp_path / "mixed"
    copy.deepcopy(networks["unet"]).half().save_pretrained(folder / "unet", variant="fp16")
    networks["vae"].save_pretrained(folder / "vae")
    networks["text_encoder"].save_pretrained(folder / "text_encoder")
    copy.deepcopy(networks["text_encoder"]).half().save_pretrained(folder / "text_encoder", variant="fp16")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(PUBLISHED["sd-1"] | BETAS))
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_folder_with_variants_of_some_parts(mixed_folder: Path, load: Load):
    check_facts(mixed_folder, KINDS["sd1"])
    assert record(mixed_folder).repo_variant == "fp16"
    check_outputs(load, mixed_folder, round_weights(parts("sd1"), torch.float16, "unet", "text_encoder"))


def test_sharded_folder(tmp_path: Path, load: Load):
    folder = tmp_path / "pieces"
    for variant in (None, "fp16"):
        parts("sd1")["unet"].save_pretrained(folder / "unet", variant=variant, max_shard_size="2MB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 2
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    check_outputs(load, folder, {"unet": parts("sd1")["unet"]})


class TestPublishedSizes:
    """What is read from the sizes of tensors is, for the published models, what their configurations state."""

    @pytest.mark.parametrize("base", PUBLISHED)
    def test_unets(self, base: str):
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        published = read_json(single_files.configs_of(BaseModelType(base)) / "unet/config.json")
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(published)
            again = UNet2DConditionModel.from_config(unet_config(unet.state_dict(), published))
        config, config_again = (
            {key: list(value) if isinstance(value, tuple) else value for key, value in model.config.items()}
            for model in (unet, again)
        )
        depth = "transformer_layers_per_block"  # 1 or a list: it is the same without attention or at the same depth
        ignored = {"_use_default_values": None, depth: None}
        assert config_again | ignored == config | ignored
        assert [name for name, _ in again.named_modules()] == [name for name, _ in unet.named_modules()]
        shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (unet, again)]
        assert shapes[0] == shapes[1]

    @pytest.mark.parametrize("base", PUBLISHED)
    def test_autoencoders(self, base: str):
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        published = read_json(single_files.configs_of(BaseModelType(base)) / "vae/config.json")
        with torch.device("meta"):
            weights = {
                n.removeprefix(VAE_PREFIX): v for n, v in vae_weights(AutoencoderKL.from_config(published)).items()
            }
        config = kl_config(weights, published)
        assert {key: config[key] for key in published} == published

    @pytest.mark.parametrize(
        ("base", "part", "stored", "unused"),
        [
            ("sd-1", "text_encoder", 12, 0),
            ("sd-2", "text_encoder", 24, 1),
            ("sd-2", "text_encoder", 23, 1),
            ("sdxl", "text_encoder_2", 32, 0),
            ("sdxl-refiner", "text_encoder_2", 32, 0),
        ],
    )
    def test_text_encoders(self, base: str, part: str, stored: int, unused: int):
        from transformers import CLIPTextConfig, CLIPTextModel

        published = read_json(single_files.configs_of(BaseModelType(base)) / part / "config.json")
        with torch.device("meta"):
            weights = CLIPTextModel(CLIPTextConfig(**published | {"num_hidden_layers": stored})).state_dict()
        config = text_config(
            {n.removeprefix("text_model."): v for n, v in weights.items()}, published, unused
        ).to_dict()
        assert {key: config[key] for key in published} == published


@pytest.mark.filterwarnings("ignore:Should have tb<=t1")  # torchsde rounds its end
@pytest.mark.parametrize("name", discrete.NAMES)
def test_every_scheduler_supports_zero_terminal_snr(name: str, denoise: Callable[..., torch.Tensor]):
    config = read_json(single_files.configs_of(BaseModelType.StableDiffusionXL) / "scheduler/scheduler_config.json")
    changes = {"scheduler": name, "prediction_type": "v_prediction", "steps": 4}
    latents = denoise(**changes, scheduler_config=config | {"rescale_betas_zero_snr": True})
    assert torch.isfinite(latents).all()
    rescaled = "rescale_betas_zero_snr" in discrete.create(name, config).config
    assert torch.equal(denoise(**changes, scheduler_config=config), latents) != rescaled


def test_a_mask_for_another_size(denoise: Callable[..., torch.Tensor]):
    """Only inpainting models see the masked image's latents, which cannot be resized as masks are."""
    changes = {"keep_mask": torch.ones(1, 1, 40, 24), "masked_latents": noise_of(5, 1, 4, 5, 3)}
    with pytest.raises(ValueError, match="the mask is for latents of 3 x 5, but those to denoise are 8 x 8"):
        denoise(unet=make_unet(in_channels=9), **changes)
    assert denoise(**changes).shape == (1, 4, 8, 8)


def test_a_depth_model_is_refused_by_its_channels(denoise: Callable[..., torch.Tensor]):
    with pytest.raises(ValueError, match=r"needs 5 channels .*: select a model for text to image or inpainting"):
        denoise(unet=make_unet(in_channels=5))
