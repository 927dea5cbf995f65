"""Which files of a repository are fetched."""

from pathlib import Path

import pytest

from invokeclone.graph.vocabulary.taxonomy import ModelRepoVariant
from invokeclone.models.install.sources.selection import NothingToInstall, select

PIPELINE = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5-pruned.ckpt",
    "feature_extractor/preprocessor_config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/pytorch_model.fp16.bin",
    "text_encoder/flax_model.msgpack",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer/tokenizer.model",
    "tokenizer/chat_template.jinja",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/model.onnx",
    "unet/model.onnx_data",
    "unet/openvino_model.xml",
    "unet/openvino_model.bin",
    "unet/diffusion_flax_model.msgpack",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.bin",
]
TEXTS = {name for name in PIPELINE if name.endswith((".json", ".txt", ".model", ".jinja"))}


def select_names(names, variant=None, subfolder=None):
    paths = select([Path(name) for name in names], variant, Path(subfolder) if subfolder else None)
    return [path.as_posix() for path in paths]


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        (None, "text_encoder/model.safetensors unet/diffusion_pytorch_model.safetensors"),
        (ModelRepoVariant.Default, "text_encoder/model.safetensors unet/diffusion_pytorch_model.safetensors"),
        (ModelRepoVariant.FP32, "text_encoder/model.safetensors unet/diffusion_pytorch_model.safetensors"),
        (ModelRepoVariant.FP16, "text_encoder/model.fp16.safetensors unet/diffusion_pytorch_model.fp16.safetensors"),
        (ModelRepoVariant.ONNX, "text_encoder/model.safetensors unet/model.onnx unet/model.onnx_data"),
        (ModelRepoVariant.OpenVINO, "text_encoder/model.safetensors unet/openvino_model.xml unet/openvino_model.bin"),
        (ModelRepoVariant.Flax, "text_encoder/flax_model.msgpack unet/diffusion_flax_model.msgpack"),
    ],
)
def test_a_pipeline_by_variant(variant, weights):
    """A folder without the variant gives its usual weights; single-file models beside the folders are left out."""
    assert set(select_names(PIPELINE, variant)) == TEXTS | set(weights.split()) | {
        "vae/diffusion_pytorch_model.safetensors"
    }


def test_subfolders_and_files():
    assert select_names(PIPELINE, None, "vae") == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    assert select_names(PIPELINE, None, "v1-5-pruned.safetensors") == ["v1-5-pruned.safetensors"]
    assert select_names(PIPELINE, None, "scheduler/scheduler_config.json+vae") == [
        "scheduler/scheduler_config.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    with pytest.raises(NothingToInstall, match="has no nowhere; its files are README"):
        select_names(PIPELINE, None, "nowhere")
    with pytest.raises(NothingToInstall):
        select_names(PIPELINE, None, "va")


def test_shards_stay_together_with_their_index():
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    halves = [f"diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    names = [
        "config.json",
        *shards,
        "model.safetensors.index.json",
        "pytorch_model-00001-of-00001.bin",
        "pytorch_model.bin.index.json",
    ]
    assert select_names(names) == ["config.json", *shards, "model.safetensors.index.json"]
    names = [
        *halves,
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
    ]
    assert select_names(names, ModelRepoVariant.FP16) == [*halves, names[2]]
    assert select_names(names) == ["diffusion_pytorch_model.safetensors"]


def test_safe_formats_take_precedence_over_the_variant():
    names = ["config.json", "model.fp16.bin", "model.safetensors"]
    assert select_names(names, ModelRepoVariant.FP16) == ["config.json", "model.safetensors"]
    assert select_names(["ip_adapter.bin", "image_encoder.txt"]) == ["ip_adapter.bin", "image_encoder.txt"]


def test_a_repository_of_single_files():
    assert select_names(["README.md", "sdxl-x.safetensors", "x.txt"]) == ["sdxl-x.safetensors"]
    with pytest.raises(NothingToInstall, match=r"specify one of them: a\.safetensors, b\.safetensors"):
        select_names(["a.safetensors", "b.safetensors"])
    with pytest.raises(NothingToInstall, match=r"has no model, only README\.md"):
        select_names(["README.md"])
    with pytest.raises(NothingToInstall):
        select_names([])
