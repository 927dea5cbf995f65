"""Single files turned into folders: tiny networks in the original's names come out as they went in."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine import conversion, open_clip
from invokeclone.engine.conversion import CannotConvert, Checkpoint
from invokeclone.families.sd1 import conversion as sd1
from invokeclone.families.sd1 import single_file
from invokeclone.families.sd2 import conversion as sd2
from invokeclone.families.sdxl import conversion as sdxl
from invokeclone.graph.taxonomy import BaseModelType
from invokeclone.kit.settings import Settings
from invokeclone.models.files import header
from invokeclone.worker.engine import Engine
from invokeclone.worker.requests import Requests
from tests.families.conftest import CONFIGS, SCHEDULER
from tests.families.test_sd1_single_file import same, unet_name, vae_name

TIME = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 40}
EMBEDDING = {
    f"add_embedding.linear_{n + 1}.{kind}": f"label_emb.0.{2 * n}.{kind}" for n in (0, 1) for kind in ("weight", "bias")
}


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


def open_clip_of(model: Any) -> dict[str, torch.Tensor]:
    """Return a transformers' text encoder's weights as OpenCLIP has them."""
    names = [(ours, theirs) for theirs, ours in open_clip._NAMES]
    found: dict[str, torch.Tensor] = {}
    state = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
    for name, value in state.items():
        if name == "text_projection.weight":
            found["text_projection"] = value.T.contiguous()
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        elif ".q_proj." in name:
            fused = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            layer, kind = name.split(".")[2], name.rpartition(".")[2]
            found[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = fused
        else:
            for ours, theirs in names:
                name = name.replace(ours, theirs)  # noqa: PLW2901
            found[name] = value
    return found


def original(unet: Any, vae: Any) -> dict[str, torch.Tensor]:
    weights = {
        f"{single_file.UNET_PREFIX}{EMBEDDING[name]}" if name in EMBEDDING else unet_name(name): value
        for name, value in unet.state_dict().items()
    }
    for name, value in vae.state_dict().items():
        is_attention = "attentions" in name and "to_" in name and name.endswith("weight")
        weights[vae_name(name)] = value[..., None, None] if is_attention else value
    return weights


def write(folder: Path, weights: dict[str, torch.Tensor], **configs: Any) -> Checkpoint:
    """Write a single file and the configurations of its parts; `parts` of a family read both."""
    for name, config in configs.items():
        config.save_pretrained(folder / name) if name.startswith("text") else config.save_config(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, folder / "tiny.safetensors")
    return Checkpoint(folder / "tiny.safetensors", torch.float32, "v_prediction")


def convert(pipeline: conversion.Pipeline, target: Path) -> Path:
    converters = dict(conversion._converters)
    conversion._converters[BaseModelType.Any] = lambda _: pipeline
    try:
        conversion.convert(BaseModelType.Any, None, target)
    finally:
        conversion._converters.clear()
        conversion._converters.update(converters)
    return target


def test_stable_diffusion_1(parts: dict[str, Any], tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    weights = original(parts["unet"], parts["vae"])
    for name, value in parts["text_encoder"].state_dict().items():
        weights[f"{single_file.TEXT_PREFIX}text_model.{name.removeprefix('text_model.')}"] = value
    checkpoint = write(
        tmp_path, weights, unet=parts["unet"], vae=parts["vae"], text_encoder=parts["text_encoder"].config
    )
    folder = convert(sd1.parts(checkpoint, tmp_path), tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        "model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler",
    }  # fmt: skip
    loaded = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    assert all(same(getattr(loaded, name), parts[name]) for name in ("unet", "vae", "text_encoder"))
    assert (loaded.scheduler.config.prediction_type, loaded.tokenizer.pad_token) == ("v_prediction", "<|endoftext|>")


def test_stable_diffusion_2(parts: dict[str, Any], tmp_path: Path) -> None:
    from transformers import CLIPTextModel

    text = CLIPTextModel(text_config()).eval()
    weights = original(parts["unet"], parts["vae"])
    weights |= {f"{sd2.TEXT_PREFIX}{name}": value for name, value in open_clip_of(text).items()}
    # The original has one layer more, which Stable Diffusion 2 does not use.
    weights[f"{sd2.TEXT_PREFIX}transformer.resblocks.2.ln_1.weight"] = torch.ones(16)
    checkpoint = write(tmp_path, weights, unet=parts["unet"], vae=parts["vae"], text_encoder=text.config)
    folder = convert(sd2.parts(checkpoint, tmp_path), tmp_path / "out")
    assert same(CLIPTextModel.from_pretrained(folder / "text_encoder"), text)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


@pytest.mark.parametrize("refiner", [False, True])
def test_stable_diffusion_xl_and_its_refiner(parts: dict[str, Any], tmp_path: Path, refiner: bool) -> None:
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(1)
    unet = UNet2DConditionModel(**CONFIGS["unet"], **TIME).eval()
    second = CLIPTextModelWithProjection(text_config()).eval()
    weights = original(unet, parts["vae"])
    prefix = sdxl.REFINER_CLIP_G_PREFIX if refiner else sdxl.CLIP_G_PREFIX
    weights |= {f"{prefix}{name}": value for name, value in open_clip_of(second).items()}
    configs = {"unet": unet, "vae": parts["vae"], "text_encoder_2": second.config}
    if not refiner:
        first = parts["text_encoder"]
        configs["text_encoder"] = first.config
        for name, value in first.state_dict().items():
            weights[f"{sdxl.CLIP_L_PREFIX}text_model.{name.removeprefix('text_model.')}"] = value
    checkpoint = write(tmp_path, weights, **configs)
    made = sdxl.refiner_parts(checkpoint, tmp_path) if refiner else sdxl.parts(checkpoint, tmp_path, tmp_path)
    folder = convert(made, tmp_path / "out")
    kind = StableDiffusionXLImg2ImgPipeline if refiner else StableDiffusionXLPipeline
    loaded = kind.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    assert same(loaded.unet, unet)
    assert same(loaded.text_encoder_2, second)
    assert loaded.tokenizer_2.pad_token == "!"
    assert (loaded.text_encoder is None) == refiner
    assert refiner or same(loaded.text_encoder, parts["text_encoder"])


@pytest.mark.parametrize(
    ("folder", "part", "size"),
    [
        (sd2.FOLDER, "unet", 865_910_724),
        (sdxl.FOLDER, "unet", 2_567_463_684),
        (sdxl.FOLDER, "text_encoder_2", 694_659_840),
        (sd2.FOLDER, "text_encoder", 340_387_840),
    ],
)
def test_the_configurations_are_those_of_the_published_models(folder: Path, part: str, size: int) -> None:
    """The numbers of weights tell: they are well known, and no other sizes of layers give them."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = json.loads((folder / part / "config.json").read_text())
    with torch.device("meta"):
        if part == "unet":
            model = UNet2DConditionModel.from_config(config)
        else:
            kind = CLIPTextModelWithProjection if part.endswith("2") else CLIPTextModel
            model = kind(CLIPTextConfig(**config))
    assert sum(weight.numel() for weight in model.parameters()) == size


def test_what_lacks_a_part_cannot_be_converted(parts: dict[str, Any], tmp_path: Path) -> None:
    weights = original(parts["unet"], parts["vae"])
    checkpoint = write(
        tmp_path, weights, unet=parts["unet"], vae=parts["vae"], text_encoder=parts["text_encoder"].config
    )
    with pytest.raises(CannotConvert, match="text_encoder"):
        convert(sd1.parts(checkpoint, tmp_path), tmp_path / "out")
    with pytest.raises(CannotConvert, match="flux cannot be converted"):
        conversion.convert(BaseModelType.Flux, checkpoint, tmp_path / "out")


async def test_a_worker_tells_why_it_cannot_convert(settings: Settings, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    body = {"path": str(tmp_path / "a.safetensors"), "target": str(tmp_path / "out"), "prediction_type": "epsilon"}
    requests = Requests(SimpleNamespace(engine=Engine(settings, "cpu")))
    answer = await requests.answer("convert_model", body | {"base": "flux", "half": True})
    assert answer == {"refused": "models of flux cannot be converted"}
    answer = await requests.answer("convert_model", body | {"base": "sd-1", "half": True})
    assert "unet" in answer["refused"]


@pytest.mark.parametrize("zipped", [True, False])
def test_the_server_reads_the_names_and_shapes_of_torch_files_as_torch_does(tmp_path: Path, zipped: bool) -> None:
    weights = {"a.weight": torch.zeros(3, 4, dtype=torch.float16), "b": torch.nn.Parameter(torch.zeros(2))}
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": weights, "global_step": 7}, path, _use_new_zipfile_serialization=zipped)
    tensors, notes = header(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"a.weight": (3, 4), "b": (2,)}
    assert (tensors["a.weight"].dtype, tensors["b"].dtype, notes) == ("F16", "F32", {"global_step": "7"})
