"""Finding loaders, models without a record, and the errors when something is missing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import T5EncoderModel

from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loaded import device_of
from invokeclone.engine.loading import loaders
from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.config.settings import Settings


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(Settings(root=tmp_path), "cpu")


def record(**changes: object) -> SimpleNamespace:
    usual = {
        "key": "k",
        "name": "thing",
        "base": BaseModelType.StableDiffusion1,
        "type": ModelType.Main,
        "format": ModelFormat.Diffusers,
    }
    return SimpleNamespace(**{**usual, **changes})


def test_families_register_their_loaders():
    for base in (BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2):
        assert loaders.find(record(base=base))
    assert loaders.find(record(format=ModelFormat.Checkpoint))
    assert loaders.find(record(type=ModelType.VAE, format=ModelFormat.Checkpoint))


def test_a_missing_loader_error_names_the_kind():
    with pytest.raises(loaders.NoLoader, match=r"thing.*unknown main"):
        loaders.find(record(base=BaseModelType.Unknown))


def test_missing_files_are_reported(cache: ModelCache, tmp_path: Path):
    with pytest.raises(loaders.ModelFilesMissing, match="thing"):
        loaders.load(cache, record(), tmp_path / "gone", SubModelType.UNet)
    with pytest.raises(loaders.ModelFilesMissing):
        loaders.load_file(cache, tmp_path / "gone.safetensors")


def test_loaders_receive_a_load_request(cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaders.discover()
    monkeypatch.setattr(loaders, "_loaders", dict(loaders._loaders))
    requests: list[LoadRequest] = []

    @loaders.loads(type=ModelType.SpandrelImageToImage)
    def load(request: LoadRequest) -> torch.nn.Module:
        requests.append(request)
        return torch.nn.Linear(1, 1)

    folder = tmp_path / "unet"
    folder.mkdir()
    config = record(base=BaseModelType.Unknown, type=ModelType.SpandrelImageToImage, format=ModelFormat.Unknown)
    loaded = loaders.load(cache, config, tmp_path, SubModelType.UNet)
    assert cache.keys() == [f"k:{SubModelType.UNet}"]
    request = requests[0]
    assert (request.config, request.path, request.submodel) == (config, tmp_path, SubModelType.UNet)
    assert (request.dtype, request.device) == (torch.float32, torch.device("cpu"))
    with loaded as model, loaded.model_on_device() as (weights, again):
        assert model is again is loaded.model
        assert set(weights or ()) == {"weight", "bias"}
        assert device_of(loaded, model) == device_of(object(), model) == torch.device("cpu")
    assert loaded.config is config


def test_load_files_without_a_record(cache: ModelCache, tmp_path: Path):
    weights = {"a": torch.ones(3)}
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        with loaders.load_file(cache, tmp_path / name) as tensors:
            assert torch.equal(tensors["a"], weights["a"])
    with loaders.load_file(cache, tmp_path / "a.pt", lambda path: path.name) as tensors:
        assert isinstance(tensors, dict), "it was in the cache"
    torch.save({"f": SimpleNamespace}, tmp_path / "code.pt")
    with pytest.raises(Exception, match=r"refers to types\.SimpleNamespace"):
        loaders.load_file(cache, tmp_path / "code.pt")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(
            (name, content)
            for name in ("config.json", "quantization_config.json")
            for content in (b"{", b"[]", b"\xff")
        ),
        ("config.json", b'{"quantization_config": []}'),
    ],
)
def test_damaged_settings_of_a_folder_are_named(file: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / file).write_bytes(content)

    def load(_request: LoadRequest) -> object:
        return load_folder(tmp_path, T5EncoderModel, torch.float32)

    request = LoadRequest(record(), tmp_path, None, torch.float32, torch.device("cpu"), Settings(root=tmp_path))
    with pytest.raises(loaders.ModelFilesDamaged, match=rf"thing cannot be read.*{file}"):
        loaders._load(load, request)
