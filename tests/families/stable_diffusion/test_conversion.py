"""Single files turned into folders: tiny networks in the original's names are the same in the folder."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.loading import conversion
from invokeclone.engine.loading.conversion import CannotConvert, SourceCheckpoint
from invokeclone.families.stable_diffusion import conversion as stable_diffusion
from invokeclone.families.stable_diffusion import single_files
from invokeclone.families.stable_diffusion.single_files import SD2_TEXT_PREFIX
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.kit.config.settings import Settings
from invokeclone.models.files.model_files import read_header
from invokeclone.worker.engine import Engine
from invokeclone.worker.requests import Requests
from tests.tiny_checkpoints import clip_weights, open_clip_weights, same_weights, unet_weights, vae_weights
from tests.tiny_models import SCHEDULER, make_unet

TIME = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 40}


def text_config(*, layers: int = 2) -> Any:
    from transformers import CLIPTextConfig

    sizes = {
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_attention_heads": 2,
        "projection_dim": 12,
        "vocab_size": 50,
    }
    return CLIPTextConfig(**sizes, num_hidden_layers=layers, hidden_act="gelu", eos_token_id=49, bos_token_id=48)


def write(folder: Path, weights: dict[str, torch.Tensor], **configs: Any) -> SourceCheckpoint:
    """Write a single file and the configurations of its parts; `parts` of a family read both."""
    for name, config in configs.items():
        config.save_pretrained(folder / name) if name.startswith("text") else config.save_config(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, folder / "tiny.safetensors")
    return SourceCheckpoint(folder / "tiny.safetensors", torch.float32, "v_prediction")


def convert(pipeline: conversion.Pipeline, target: Path) -> Path:
    converters = dict(conversion._converters)
    conversion._converters[BaseModelType.Any] = lambda _: pipeline
    try:
        conversion.convert(BaseModelType.Any, None, target)
    finally:
        conversion._converters.clear()
        conversion._converters.update(converters)
    return target


def test_stable_diffusion_1(sd1_parts: dict[str, Any], tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    weights = unet_weights(sd1_parts["unet"]) | vae_weights(sd1_parts["vae"])
    weights |= clip_weights(sd1_parts["text_encoder"])
    checkpoint = write(
        tmp_path, weights, unet=sd1_parts["unet"], vae=sd1_parts["vae"], text_encoder=sd1_parts["text_encoder"].config
    )
    folder = convert(stable_diffusion.sd1_pipeline(checkpoint, tmp_path), tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        "model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler",
    }  # fmt: skip
    loaded = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    assert all(same_weights(getattr(loaded, name), sd1_parts[name]) for name in ("unet", "vae", "text_encoder"))
    assert (loaded.scheduler.config.prediction_type, loaded.tokenizer.pad_token) == ("v_prediction", "<|endoftext|>")


def test_stable_diffusion_2(sd1_parts: dict[str, Any], tmp_path: Path) -> None:
    from transformers import CLIPTextModel

    text = CLIPTextModel(text_config()).eval()
    weights = unet_weights(sd1_parts["unet"]) | vae_weights(sd1_parts["vae"])
    weights |= open_clip_weights(text, SD2_TEXT_PREFIX)
    # The original has one layer more, which Stable Diffusion 2 does not use.
    weights[f"{SD2_TEXT_PREFIX}transformer.resblocks.2.ln_1.weight"] = torch.ones(16)
    checkpoint = write(tmp_path, weights, unet=sd1_parts["unet"], vae=sd1_parts["vae"], text_encoder=text.config)
    folder = convert(stable_diffusion.sd2_pipeline(checkpoint, tmp_path), tmp_path / "out")
    assert same_weights(CLIPTextModel.from_pretrained(folder / "text_encoder"), text)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


@pytest.mark.parametrize("refiner", [False, True])
def test_stable_diffusion_xl_and_its_refiner(sd1_parts: dict[str, Any], tmp_path: Path, refiner: bool) -> None:
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTextModelWithProjection

    unet = make_unet(**TIME)
    torch.manual_seed(1)
    second = CLIPTextModelWithProjection(text_config()).eval()
    weights = unet_weights(unet) | vae_weights(sd1_parts["vae"])
    prefix = single_files.REFINER_CLIP_G_PREFIX if refiner else single_files.CLIP_G_PREFIX
    weights |= open_clip_weights(second, prefix)
    configs = {"unet": unet, "vae": sd1_parts["vae"], "text_encoder_2": second.config}
    if not refiner:
        first = sd1_parts["text_encoder"]
        configs["text_encoder"] = first.config
        weights |= clip_weights(first, single_files.CLIP_L_PREFIX)
    checkpoint = write(tmp_path, weights, **configs)
    pipeline = (
        stable_diffusion.refiner_pipeline(checkpoint, tmp_path)
        if refiner
        else stable_diffusion.sdxl_pipeline(checkpoint, tmp_path, tmp_path)
    )
    folder = convert(pipeline, tmp_path / "out")
    kind = StableDiffusionXLImg2ImgPipeline if refiner else StableDiffusionXLPipeline
    loaded = kind.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    assert same_weights(loaded.unet, unet)
    assert same_weights(loaded.text_encoder_2, second)
    assert loaded.tokenizer_2.pad_token == "!"
    assert (loaded.text_encoder is None) == refiner
    assert refiner or same_weights(loaded.text_encoder, sd1_parts["text_encoder"])


@pytest.mark.parametrize(
    ("base", "part", "size"),
    [
        (BaseModelType.StableDiffusion2, "unet", 865_910_724),
        (BaseModelType.StableDiffusionXL, "unet", 2_567_463_684),
        (BaseModelType.StableDiffusionXL, "text_encoder_2", 694_659_840),
        (BaseModelType.StableDiffusion2, "text_encoder", 340_387_840),
    ],
)
def test_configurations_match_the_published_models(base: BaseModelType, part: str, size: int) -> None:
    """The numbers of weights tell: they are well known, and no other sizes of layers give them."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = json.loads((single_files.configs_of(base) / part / "config.json").read_text())
    with torch.device("meta"):
        if part == "unet":
            model = UNet2DConditionModel.from_config(config)
        else:
            kind = CLIPTextModelWithProjection if part.endswith("2") else CLIPTextModel
            model = kind(CLIPTextConfig(**config))
    assert sum(weight.numel() for weight in model.parameters()) == size


def test_incomplete_checkpoints_cannot_be_converted(sd1_parts: dict[str, Any], tmp_path: Path) -> None:
    weights = unet_weights(sd1_parts["unet"]) | vae_weights(sd1_parts["vae"])
    checkpoint = write(
        tmp_path, weights, unet=sd1_parts["unet"], vae=sd1_parts["vae"], text_encoder=sd1_parts["text_encoder"].config
    )
    with pytest.raises(CannotConvert, match="text_encoder"):
        convert(stable_diffusion.sd1_pipeline(checkpoint, tmp_path), tmp_path / "out")
    with pytest.raises(CannotConvert, match="flux cannot be converted"):
        conversion.convert(BaseModelType.Flux, checkpoint, tmp_path / "out")


async def test_a_worker_states_why_it_cannot_convert(settings: Settings, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    body = {"path": str(tmp_path / "a.safetensors"), "target": str(tmp_path / "out"), "prediction_type": "epsilon"}
    requests = Requests(SimpleNamespace(engine=Engine(settings, "cpu"), remote=None))
    answer = await requests.answer("convert_model", body | {"base": "flux", "half": True})
    assert answer == {"refused": "models of flux cannot be converted"}
    answer = await requests.answer("convert_model", body | {"base": "sd-1", "half": True})
    assert "unet" in answer["refused"]


@pytest.mark.parametrize("zipped", [True, False])
def test_tensor_names_and_shapes_of_torch_files_match_torch(tmp_path: Path, zipped: bool) -> None:
    weights = {"a.weight": torch.zeros(3, 4, dtype=torch.float16), "b": torch.nn.Parameter(torch.zeros(2))}
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": weights, "global_step": 7}, path, _use_new_zipfile_serialization=zipped)
    tensors, notes = read_header(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"a.weight": (3, 4), "b": (2,)}
    assert (tensors["a.weight"].dtype, tensors["b"].dtype, notes) == ("F16", "F32", {"global_step": "7"})
