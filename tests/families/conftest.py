"""A tiny Stable Diffusion 1 with random weights, made once per run, and a context for nodes."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.engine import loaders
from invokeclone.engine.cache import ModelCache
from invokeclone.graph.context import CanceledException, PipelineIntermediateState
from invokeclone.graph.model_fields import ModelIdentifierField
from invokeclone.graph.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.settings import Settings

torch.set_num_threads(1)  # networks this small lose time to threads that wait for each other

CONFIGS = {
    "unet": {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "sample_size": 8,
    },
    "vae": {
        "block_out_channels": [4, 4, 8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "sample_size": 64,
    },
    "text_encoder": {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "projection_dim": 32,
        "vocab_size": 514,
        "bos_token_id": 512,
        "eos_token_id": 513,
        "pad_token_id": 513,
    },
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


def make_parts() -> dict[str, Any]:
    """Build the networks and the tokenizer, with seeded random weights. The vocabulary is the bytes, without merges."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from invokeclone.families.sd1.single_file import _byte_letters

    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    torch.manual_seed(0)
    return {
        "unet": UNet2DConditionModel(**CONFIGS["unet"]).eval(),
        "vae": AutoencoderKL(**CONFIGS["vae"]).eval(),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**CONFIGS["text_encoder"])).eval(),
        "tokenizer": CLIPTokenizer(
            vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77
        ),
    }


@pytest.fixture(scope="session")
def parts() -> dict[str, Any]:
    return make_parts()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, parts: dict[str, Any]) -> Path:
    """Save the model as a diffusers folder."""
    folder = tmp_path_factory.mktemp("tiny-sd1")
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def record(tiny: Path) -> SimpleNamespace:
    return SimpleNamespace(
        key="tiny",
        name="tiny-sd1",
        path=str(tiny),
        base=BaseModelType.StableDiffusion1,
        type=ModelType.Main,
        format=ModelFormat.Diffusers,
        variant="normal",
        prediction_type="epsilon",
    )


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(Settings(root=tmp_path, device="cpu"), "cpu")


@pytest.fixture
def submodel(cache: ModelCache, record: SimpleNamespace, tiny: Path) -> Callable[[str], Any]:
    """Load a part of the tiny model."""
    return lambda name: loaders.load(cache, record, tiny, SubModelType(name)).model


class Kept:
    """The tensors face, and the conditioning face."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def save(self, thing: Any) -> str:
        name = f"thing_{len(self.kept)}"
        self.kept[name] = thing
        return name

    def load(self, name: str) -> Any:
        thing = self.kept[name]
        return thing.clone() if isinstance(thing, torch.Tensor) else thing


@dataclass
class Images:
    kept: dict[str, Image.Image] = field(default_factory=dict)
    categories: list[Any] = field(default_factory=list)

    def save(self, image: Image.Image, board_id: Any = None, image_category: Any = None, metadata: Any = None) -> Any:
        name = f"image_{len(self.kept)}.png"
        self.kept[name] = image
        self.categories.append(image_category)
        return SimpleNamespace(image_name=name, width=image.width, height=image.height)

    def get_pil(self, image_name: str, mode: str | None = None) -> Image.Image:
        image = self.kept[image_name].copy()
        return image.convert(mode) if mode else image


@dataclass
class Models:
    cache: ModelCache
    record: Any
    folder: Path
    loaded: list[str] = field(default_factory=list)

    def exists(self, identifier: Any) -> bool:
        return getattr(identifier, "key", identifier) == self.record.key

    def get_config(self, identifier: Any) -> Any:
        assert self.exists(identifier)
        return self.record

    def load(self, identifier: ModelIdentifierField, submodel_type: Any = None) -> Any:
        self.loaded.append(str(identifier.submodel_type))
        return loaders.load(self.cache, self.record, self.folder, submodel_type or identifier.submodel_type)


@dataclass
class Util:
    messages: list[str] = field(default_factory=list)
    states: list[PipelineIntermediateState] = field(default_factory=list)
    bases: set[Any] = field(default_factory=set)
    cancel_at: int | None = None

    def signal_progress(self, message: str, percentage: float | None = None, **_: Any) -> None:
        self.messages.append(message)

    def sd_step_callback(self, intermediate_state: PipelineIntermediateState, base_model: Any) -> None:
        self.states.append(intermediate_state)
        self.bases.add(base_model)
        if self.cancel_at is not None and intermediate_state.step >= self.cancel_at:
            raise CanceledException


@dataclass
class FakeContext:
    models: Models
    settings: Settings
    tensors: Kept = field(default_factory=Kept)
    conditioning: Kept = field(default_factory=Kept)
    images: Images = field(default_factory=Images)
    util: Util = field(default_factory=Util)
    logger: Any = field(default_factory=nullcontext)

    @property
    def config(self) -> Any:
        return SimpleNamespace(get=lambda: self.settings)


@pytest.fixture
def context(cache: ModelCache, record: SimpleNamespace, tiny: Path) -> FakeContext:
    return FakeContext(Models(cache, record, tiny), cache.settings)


@pytest.fixture
def identifier() -> ModelIdentifierField:
    return ModelIdentifierField(
        key="tiny", hash="blake3:0", name="tiny-sd1", base=BaseModelType.StableDiffusion1, type=ModelType.Main
    )
