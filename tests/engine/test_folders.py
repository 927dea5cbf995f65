"""Model folders that bring code, pickles or settings that name such: none of it runs, and torch's own files are read without torch.load."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from invokeclone.components.language_models import load as language_models
from invokeclone.engine.loading import files, folders, torch_files
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles
from tests.tiny_models import make_vae

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_torch_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail every test in which torch.load is called."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("torch.load was called")

    for name in ("torch.load", "torch.serialization.load"):
        monkeypatch.setattr(name, refuse)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Return a file that code in a model would make."""
    return tmp_path / "it ran"


class Runs:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


def code(mark: Path) -> str:
    return f"open({str(mark)!r}, 'w').close()\nclass Model:\n    pass\nConfig = Tokenizer = Pipeline = Model\n"


def tiny_language_model(folder: Path, *, safe: bool = True) -> transformers.GPT2LMHeadModel:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(content | values), encoding="utf-8")


def hostile(folder: Path, mark: Path) -> None:
    """Put everything into a folder that libraries are known to run or to follow."""
    auto_map = {name: f"evil.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")}
    change(
        folder / "config.json",
        auto_map=auto_map,
        custom_pipelines={"x": "evil"},
        transformers_weights="adapter_model.bin",
    )
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    change(folder / "adapter_config.json", base_model_name_or_path="evil/base", peft_type="LORA")
    change(folder / "model_index.json", _class_name=["evil", "Pipeline"])
    for name in (
        "evil.py",
        "__init__.py",
        "modeling.py",
        "pipeline.py",
        "unet.py",
        "conftest.py",
        "custom_generate/generate.py",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code(mark), encoding="utf-8")
    for name in ("adapter_model.bin", "training_args.bin", "optimizer.pt", ".metadata", "scheduler.pkl"):
        (folder / name).write_bytes(pickle.dumps(Runs(mark)))


def request(folder: Path, part: SubModelType | None = None) -> LoadRequest:
    return LoadRequest(None, folder, part, torch.float32, CPU, Settings(root=folder))


def test_model_code_beside_a_language_model_is_not_loaded(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "model"
    expected = tiny_language_model(folder)
    hostile(folder, mark)
    model = language_models.load(request(folder))
    assert type(model) is transformers.GPT2LMHeadModel
    assert torch.equal(model.transformer.wte.weight, expected.transformer.wte.weight)
    assert not mark.exists()


def test_models_that_require_custom_code_are_refused(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "model"
    tiny_language_model(folder)
    hostile(folder, mark)
    change(folder / "config.json", model_type="evil", architectures=["Evil"])
    for part in (None, SubModelType.Tokenizer):
        with pytest.raises(Exception):  # noqa: B017  (whatever the library says)
            language_models.load(request(folder, part))
    assert not mark.exists()


def test_identifying_a_folder_runs_no_code(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "model"
    tiny_language_model(folder)
    hostile(folder, mark)
    ModelFiles(folder).check()
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidModel, match="pickle"):
        ModelFiles(folder).check()
    assert not mark.exists()


@pytest.mark.parametrize("sharded", [False, True])
def test_folders_with_only_torch_files_give_the_same_network(tmp_path: Path, mark: Path, sharded: bool) -> None:
    expected = tiny_language_model(tmp_path / "model", safe=False)
    file = tmp_path / "model" / "pytorch_model.bin"
    if sharded:
        weights = list(expected.state_dict().items())
        for number, part in enumerate((weights[:5], weights[5:]), 1):
            torch.save(dict(part), file.with_name(f"pytorch_model-0000{number}-of-00002.bin"))
        file.unlink()
    hostile(tmp_path / "model", mark)
    model = folders.load(tmp_path / "model", transformers.GPT2LMHeadModel, torch.float32, None)
    assert not model.training
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    half = folders.load(tmp_path / "model", transformers.GPT2LMHeadModel, torch.float16, None)
    assert half.transformer.wte.weight.dtype == torch.float16
    assert not mark.exists()


def test_diffusers_parts_with_only_torch_files_give_the_same_network(tmp_path: Path, mark: Path) -> None:
    vae = make_vae()
    vae.save_pretrained(tmp_path / "vae", safe_serialization=False)
    hostile(tmp_path / "vae", mark)
    loaded = folders.load(tmp_path / "vae", type(vae), torch.bfloat16, None)
    assert loaded.dtype == torch.bfloat16
    for name, value in vae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.to(torch.bfloat16)), name
    (tmp_path / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(InvalidModel, match="exec"):
        folders.load(tmp_path / "vae", type(vae), torch.float32, None)
    assert not mark.exists()


def test_incomplete_or_other_weights_are_refused(tmp_path: Path) -> None:
    vae = make_vae()
    vae.save_pretrained(tmp_path / "vae", safe_serialization=False)
    weights = dict(vae.state_dict())
    name, value = weights.popitem()
    torch.save(weights, tmp_path / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="incomplete"):
        folders.load(tmp_path / "vae", type(vae), torch.float32, None)
    torch.save(weights | {name: torch.zeros(3, *value.shape)}, tmp_path / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="do not match"):
        folders.load(tmp_path / "vae", type(vae), torch.float32, None)


@pytest.mark.parametrize(
    "index", ["diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.fp16.json"]
)
def test_an_index_cannot_reference_pickles_or_outside_files(tmp_path: Path, mark: Path, index: str) -> None:
    vae = make_vae()
    vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / "vae" / "evil.bin").write_bytes(pickle.dumps(Runs(mark)))
    for name in ("evil.bin", "../other.safetensors"):
        change(tmp_path / "vae" / index, metadata={}, weight_map=dict.fromkeys(vae.state_dict(), name))
        with pytest.raises(InvalidModel, match="safetensors file in the same folder"):
            folders.load(tmp_path / "vae", type(vae), torch.float32, None)
    assert not mark.exists()


def test_settings_naming_remote_kernels_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_language_model(folder)
    change(
        folder / "config.json", attn_implementation="evil/kernel", text_config={"_attn_implementation": "evil/k@main"}
    )
    change(folder / "generation_config.json", attn_implementation="sdpa")
    with folders.plain_view(folder) as view:
        assert "evil" not in (view / "config.json").read_text(encoding="utf-8")
        assert "sdpa" in (view / "generation_config.json").read_text(encoding="utf-8")
        assert not {file.suffix for file in view.iterdir()} - {".json", ".safetensors"}
    (folder / "config.json").write_text(json.dumps({"\\u0061uto_map": 1}).replace("\\\\", "\\"), encoding="utf-8")
    with folders.plain_view(folder) as view:
        assert json.loads((view / "config.json").read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize("name", ["DiffusionPipeline", "AutoModel", "ModularPipeline", "pipelines", "no_such_class"])
def test_an_index_names_networks_tokenizers_and_samplers_only(tmp_path: Path, mark: Path, name: str) -> None:
    for library in ("diffusers", "transformers"):
        (tmp_path / "unet").mkdir(exist_ok=True)
        hostile(tmp_path / "unet", mark)
        change(tmp_path / "model_index.json", unet=[library, name])
        with pytest.raises(ValueError, match="not a network, tokenizer or sampler"):
            files.load_part(request(tmp_path, SubModelType.UNet))
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_as_torch_wrote_them(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    values = {
        "view": base[1:3, 2:], "turned": base.T, "empty": torch.zeros(0, 3), "scalar": torch.tensor(5), "half": torch.randn(5).half(),
        "flags": torch.tensor([True, False]), "brain": torch.ones(3).bfloat16(), "small": torch.ones(3).to(torch.float8_e4m3fn),
        "short": torch.ones(2, dtype=torch.uint16), "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }  # fmt: skip
    nested = {
        "inner": {"x": torch.ones(2)},
        "dict": torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.randn(2, 3))}),
    }
    torch.save({**values, **nested, "epoch": 3}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    tensors = torch_files.read(tmp_path / "a.pt")
    assert set(tensors) == {*values, *nested}
    for name, value in values.items():
        assert tensors[name].dtype == value.dtype
        assert tensors[name].shape == value.shape
        assert torch.equal(tensors[name].float(), value.detach().float()), name
    assert torch.equal(tensors["dict"]["*"], nested["dict"]["*"].detach())
    tensors["view"].add_(1)  # its own memory, not the file's
    assert torch.equal(torch_files.read(tmp_path / "a.pt")["view"], values["view"])


def test_tensors_sharing_the_same_bytes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(1000)
    torch.save({f"a{number}": weight.view(-1) for number in range(12)}, tmp_path / "a.pt")
    assert len(torch_files.read(tmp_path / "a.pt")) == 12
    monkeypatch.setattr(torch_files, "_MAX_REUSE", 1)
    with pytest.raises(InvalidModel, match="over the same bytes"):
        torch_files.read(tmp_path / "a.pt")


def test_safetensors_are_preferred_over_torch_files(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "model"
    expected = tiny_language_model(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(mark)))
    save_file({"x": torch.ones(1)}, folder / "other.safetensors")
    model = folders.load(folder, transformers.GPT2LMHeadModel, torch.float32, None)
    assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert not mark.exists()
