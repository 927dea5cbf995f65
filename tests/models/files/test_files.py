"""Files that are whole, and those that are not."""

import json
import os
import struct
from pathlib import Path

import pytest

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles, read_header
from invokeclone.models.files.tensors import Tensor


def test_header_of_a_complete_file(make):
    tensors, _ = read_header(make.tensors("a.safetensors", {"x": (2, 3), "y": (4,)}))
    assert tensors == {"x": Tensor("F16", (2, 3)), "y": Tensor("F16", (4,))}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"abc", "truncated"),
        (b"<html><body>please log in</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (struct.pack("<Q", 2**63), "header"),
        (struct.pack("<Q", 4) + b"nope", "damaged"),
        (struct.pack("<Q", 4) + b"[[]]", "damaged"),
        (struct.pack("<Q", 11) + b'{"a": "b"}\x20', "damaged"),
    ],
)
def test_invalid_safetensors_files_are_refused(tmp_path, data, reason):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=reason):
        ModelFiles(path).check()


def test_truncated_weights_are_detected(make):
    path = make.checkpoint()
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InvalidModel, match="truncated"):
        ModelFiles(path).check()


def test_truncated_weights_inside_a_folder_are_detected(make):
    folder = make.pipeline()
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(InvalidModel, match="diffusion_pytorch_model"):
        ModelFiles(folder).check()


def test_damaged_json_is_detected(make):
    folder = make.pipeline()
    (folder / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(InvalidModel, match="not valid JSON"):
        ModelFiles(folder).check()


@pytest.mark.parametrize("name", ["notes.txt", "model", "picture.png"])
def test_other_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidModel, match="is not a model file"):
        ModelFiles(tmp_path / name).check()


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.pth", "a.bin"])
def test_pickles_are_refused_without_reading(tmp_path, name):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InvalidModel, match="pickle"):
        ModelFiles(tmp_path / name).check()


def test_pickles_in_a_folder_are_refused_without_safe_weights(make):
    folder = make.pipeline()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"x")
    ModelFiles(folder).check()
    (folder / "vae").mkdir()
    (folder / "vae/diffusion_pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidModel, match="pickle"):
        ModelFiles(folder).check()


def test_folders_without_a_model_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep/a/b").mkdir(parents=True)
    (tmp_path / "deep/a/b/x.safetensors").write_bytes(b"")
    (tmp_path / "many").mkdir()
    for number in range(51):
        (tmp_path / f"many/{number}.txt").touch()
    for name in ("empty", "deep", "many"):
        with pytest.raises(InvalidModel, match=r"not a model folder|more than 50"):
            ModelFiles(tmp_path / name).check()


def test_missing_and_irregular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("nothing.safetensors", "pipe.safetensors"):
        with pytest.raises(InvalidModel, match="does not exist"):
            ModelFiles(tmp_path / name).check()


def test_only_weight_extensions_are_stripped_from_names(tmp_path):
    (tmp_path / "v1.5").mkdir()
    names = [ModelFiles(tmp_path / name).name for name in ("v1.5.safetensors", "v1.5.gguf", "v1.5")]
    assert names == ["v1.5", "v1.5.gguf", "v1.5"]


def test_class_name_comes_from_either_config(make):
    assert ModelFiles(make.pipeline()).class_name == "StableDiffusionPipeline"
    make.json("clip/config.json", {"architectures": ["CLIPTextModel"]})
    assert ModelFiles(make.folder / "clip").class_name == "CLIPTextModel"
    make.json("odd/config.json", ["list"])
    assert ModelFiles(make.folder / "odd").class_name is None


def test_circular_symlinks_terminate(make):
    folder = make.pipeline()
    (folder / "again").symlink_to(folder)
    assert len(ModelFiles(folder).files) == 4


def test_size_is_that_of_all_files(make):
    folder = make.pipeline()
    assert ModelFiles(folder).size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_metadata_is_not_a_tensor(tmp_path):
    text = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    path = Path(tmp_path / "a.safetensors")
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert read_header(path) == ({}, {"format": "pt"})


def test_a_folder_without_all_shards_of_an_index_is_incomplete(make):
    folder = make.pipeline()
    shards = [f"model-{number}-of-2.safetensors" for number in (1, 2)]
    make.json("pipeline/text_encoder/model.safetensors.index.json", {"weight_map": {"a": shards[0], "b": shards[1]}})
    make.tensors(f"pipeline/text_encoder/{shards[0]}", {"a": (1,)})
    with pytest.raises(
        InvalidModel, match=r"text_encoder is incomplete: model-2-of-2\.safetensors of model\.safetensors"
    ):
        ModelFiles(folder).check()
    make.tensors(f"pipeline/text_encoder/{shards[1]}", {"b": (1,)})
    ModelFiles(folder).check()


def test_an_index_of_a_variant_that_is_not_there_is_accepted(make):
    folder = make.pipeline()
    make.json("pipeline/unet/diffusion_pytorch_model.safetensors.index.json", {"weight_map": {"a": "x.safetensors"}})
    ModelFiles(folder).check()
