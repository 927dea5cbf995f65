"""Tiny Stable Diffusion models with random weights, made once per run, and a context in which nodes run with them.

A pytest plugin; torch is imported by its fixtures only.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.config.settings import Settings
from tests.fakes_context import FakeConfig, FakeContext

if TYPE_CHECKING:
    import torch

    from invokeclone.engine.cache import ModelCache

UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "sample_size": 8,
}
VAE = {
    "block_out_channels": [4, 4, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 64,
}
TEXT_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "projection_dim": 32,
    "vocab_size": 514,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
"""As published for Stable Diffusion 1.5: there is no timestep_spacing in it."""


def noise_of(seed: int, *shape: int) -> "torch.Tensor":
    """Return standard normal noise, (1, 4, 8, 8) unless another shape is given."""
    import torch

    return torch.randn(shape or (1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def make_unet(**changes: Any) -> Any:
    """Return a UNet of two levels with seeded random weights."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**{**UNET, **changes}).eval()


def make_vae() -> Any:
    """Return an autoencoder with seeded random weights."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(**VAE).eval()


def make_parts() -> dict[str, Any]:
    """Return networks with seeded random weights and a tokenizer whose vocabulary is the bytes, without merges."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from invokeclone.components.clip.load import byte_letters

    torch.set_num_threads(1)  # networks this small lose time to threads that wait for each other
    letters = byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    torch.manual_seed(0)
    return {
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)).eval(),
        "tokenizer": CLIPTokenizer(
            vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77
        ),
        "unet": make_unet(),
        "vae": make_vae(),
    }


@pytest.fixture(scope="session")
def sd1_parts() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="session")
def sd1_folder(tmp_path_factory: pytest.TempPathFactory, sd1_parts: dict[str, Any]) -> Path:
    """Save the parts as a diffusers folder."""
    folder = tmp_path_factory.mktemp("tiny-sd1")
    for name, part in sd1_parts.items():
        part.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def sd1_record(sd1_folder: Path) -> SimpleNamespace:
    return SimpleNamespace(
        key="tiny",
        name="tiny-sd1",
        path=str(sd1_folder),
        base=BaseModelType.StableDiffusion1,
        type=ModelType.Main,
        format=ModelFormat.Diffusers,
        variant="normal",
        prediction_type="epsilon",
    )


@pytest.fixture
def sd1_identifier() -> ModelIdentifierField:
    return ModelIdentifierField(
        key="tiny", hash="blake3:0", name="tiny-sd1", base=BaseModelType.StableDiffusion1, type=ModelType.Main
    )


@pytest.fixture
def model_cache(tmp_path: Path) -> "ModelCache":
    from invokeclone.engine.cache import ModelCache

    return ModelCache(Settings(root=tmp_path, device="cpu"), "cpu")


@pytest.fixture
def load_part(model_cache: "ModelCache", sd1_record: SimpleNamespace, sd1_folder: Path) -> Callable[[str], Any]:
    """Load a part of the tiny model."""
    from invokeclone.engine.loading import loaders

    return lambda name: loaders.load(model_cache, sd1_record, sd1_folder, SubModelType(name)).model


@pytest.fixture(scope="session")
def sd1_checkpoint(sd1_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the networks as a single file."""
    import torch
    from safetensors.torch import save_file

    from invokeclone.families.stable_diffusion.single_files import SD1_TEXT_PREFIX
    from tests.tiny_checkpoints import clip_weights, unet_weights, vae_weights

    weights = {
        **unet_weights(sd1_parts["unet"]),
        **vae_weights(sd1_parts["vae"]),
        **clip_weights(sd1_parts["text_encoder"]),
        f"{SD1_TEXT_PREFIX}text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


@pytest.fixture(scope="session")
def sd1_configs(sd1_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the configurations that go with the single file."""
    folder = tmp_path_factory.mktemp("configs")
    sd1_parts["unet"].save_config(folder / "unet")
    sd1_parts["vae"].save_config(folder / "vae")
    sd1_parts["text_encoder"].config.save_pretrained(folder / "text_encoder")
    return folder


@dataclass
class TinyModels:
    """The context's models interface; there is one model. `loaded` lists the submodels that nodes asked for."""

    cache: "ModelCache"
    record: Any
    folder: Path
    loaded: list[str] = field(default_factory=list)

    def exists(self, identifier: Any) -> bool:
        return getattr(identifier, "key", identifier) == self.record.key

    def get_config(self, identifier: Any) -> Any:
        assert self.exists(identifier)
        return self.record

    def load(self, identifier: ModelIdentifierField, submodel_type: Any = None) -> Any:
        from invokeclone.engine.loading import loaders

        self.loaded.append(str(identifier.submodel_type))
        return loaders.load(self.cache, self.record, self.folder, submodel_type or identifier.submodel_type)


@pytest.fixture
def node_context(model_cache: "ModelCache", sd1_record: SimpleNamespace, sd1_folder: Path) -> FakeContext:
    """Return a context for nodes, with the tiny model."""
    return FakeContext(models=TinyModels(model_cache, sd1_record, sd1_folder), config=FakeConfig(model_cache.settings))
