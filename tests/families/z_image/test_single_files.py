"""Z-Image in single files: the authors' names, prefixes, quantized weights, incomplete files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.quantized.packed import PackedLinear
from invokeclone.families.z_image import single_files
from invokeclone.families.z_image.load import load_checkpoint
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings
from tests.quantized_files import write_gguf
from tests.tiny_transformers import make_z_image_transformer, original_z_image_names

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def transformer() -> Any:
    return make_z_image_transformer().to(torch.bfloat16)


@pytest.fixture(scope="module")
def tensors(transformer: Any) -> dict[str, torch.Tensor]:
    """Return the transformer's tensors with the authors' names, as published: without a token that pads images."""
    return original_z_image_names(transformer.state_dict())


def load(path: Path, part: SubModelType | None = SubModelType.Transformer) -> Any:
    return load_checkpoint(
        LoadRequest(SimpleNamespace(name="file"), path, part, torch.float32, CPU, Settings(root=path.parent))
    )


def predict(transformer: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(16, 1, 16, 16, generator=generator).bfloat16()
    text = torch.randn(9, 32, generator=generator).bfloat16()
    with torch.inference_mode():
        (output,) = transformer([latents], torch.tensor([0.3]).bfloat16(), [text], return_dict=False)[0]
    return output.float()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_file_equals_the_folder(prefix: str, tensors: Any, transformer: Any, tmp_path: Path) -> None:
    bundle = {f"{prefix}{name}": value.contiguous() for name, value in tensors.items()}
    if prefix:
        bundle["vae.decoder.conv_in.weight"] = torch.zeros(1)
    save_file(bundle, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.axes_dims == list(transformer.config.axes_dims)
    assert torch.equal(predict(loaded), predict(transformer)), "64 tokens need no padding"


def test_a_gguf_file_stays_quantized(tensors: Any, transformer: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", tensors, "Q8_0")
    loaded = load(tmp_path / "model.gguf")
    assert isinstance(loaded.layers[0].attention.to_k, PackedLinear)
    assert loaded.dtype == torch.bfloat16
    expected = predict(transformer)
    assert (predict(loaded) - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_published_sizes_give_the_published_configuration() -> None:
    shapes = {
        "all_x_embedder.2-1.weight": (3840, 64),
        "cap_embedder.1.weight": (3840, 2560),
        **{f"layers.{number}.attention.norm_q.weight": (128,) for number in range(30)},
        **{f"noise_refiner.{number}.attention.norm_q.weight": (128,) for number in range(2)},
    }
    config = single_files.transformer_config(
        {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    )
    assert config == {
        "in_channels": 16,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "cap_feat_dim": 2560,
        "axes_dims": [32, 48, 48],
    }


def test_incomplete_files_and_missing_parts_are_named(tensors: Any, tmp_path: Path) -> None:
    save_file({n: v for n, v in tensors.items() if not n.startswith("t_embedder")}, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match=r"half.safetensors holds an incomplete transformer \(t_embedder"):
        load(tmp_path / "half.safetensors")
    save_file({"cap_embedder.1.weight": torch.zeros(2, 2)}, tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match="holds an incomplete transformer, download it again"):
        load(tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match="a file with only a transformer: it has no vae"):
        load(tmp_path / "half.safetensors", SubModelType.VAE)
