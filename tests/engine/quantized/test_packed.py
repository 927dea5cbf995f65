"""Packed weights: decoding, cutting into rows, layers, reading of GGUF and bitsandbytes files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf import GGMLQuantizationType, GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES
from safetensors.torch import save_file
from torch import nn

from invokeclone.engine.quantized import packed as packed_module
from invokeclone.engine.quantized.bitsandbytes import unpack_names
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.gguf import GGUFTensor, decode
from invokeclone.engine.quantized.packed import PackedLinear, PackedTensor, fill
from tests.quantized_files import int8, nf4, random_blocks, write_gguf

WRITTEN = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def matrix(rows: int = 6, columns: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def error_of(value: torch.Tensor, expected: torch.Tensor) -> float:
    return float((value.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("kind", WRITTEN)
def test_types_that_gguf_writes(kind: str, tmp_path: Path) -> None:
    weight = matrix()
    write_gguf(tmp_path / "a.gguf", {"x.weight": weight, "x.bias": weight[0], "odd.weight": weight[:, :5]}, kind)
    tensors = read_weights(tmp_path / "a.gguf")
    packed = tensors["x.weight"]
    assert isinstance(packed, GGUFTensor)
    assert torch.equal(tensors["x.bias"], weight[0])  # type: ignore[arg-type]
    assert torch.equal(tensors["odd.weight"], weight[:, :5])  # type: ignore[arg-type]
    assert packed.shape == weight.shape
    expected = torch.from_numpy(quants.dequantize(packed.parts["blocks"].numpy(), GGMLQuantizationType[kind]))
    assert error_of(packed.decode(torch.float32), expected) < 2e-3
    assert error_of(packed.decode(torch.float32), weight) < 0.12
    assert packed.decode(torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [*K_QUANTS, "IQ4_XS"])
def test_types_that_gguf_cannot_write(kind: str) -> None:
    """Scales are float16 as in diffusers' decoder, which InvokeAI's images depend on; gguf's own decoder is close."""
    packed, number = random_blocks(kind, 3, 2), GGMLQuantizationType[kind]
    ours = decode(packed, kind)
    theirs = dequantize_gguf_tensor(GGUFParameter(packed, quant_type=number))
    assert torch.equal(ours.flatten(), theirs.flatten())
    assert error_of(ours.flatten(), torch.from_numpy(quants.dequantize(packed.numpy(), number)).flatten()) < 2e-3


@pytest.mark.parametrize("kind", sorted(kind.name for kind in quants._type_traits if kind.name not in ("F16", "BF16")))
def test_every_type_that_gguf_knows_is_decoded(kind: str) -> None:
    """Types that diffusers lacks are decoded by gguf itself. Random bytes may be NaN or too large for float16."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    stored = np.random.default_rng(0).integers(0, 256, (3, 2 * size), dtype=np.uint8)
    packed = GGUFTensor({"blocks": torch.from_numpy(stored)}, torch.Size([3, 2 * block]), kind)
    with np.errstate(all="ignore"):
        expected = torch.from_numpy(quants.dequantize(stored, GGMLQuantizationType[kind]).astype(np.float32))
        decoded = packed.decode(torch.float32)
    assert decoded.shape == packed.shape
    usable = decoded.isfinite() & expected.isfinite() & (expected.abs() < 1e3)
    assert usable.float().mean() > 0.1
    assert error_of(decoded[usable], expected[usable]) < 5e-3


def test_a_type_without_a_decoder_is_named() -> None:
    with pytest.raises(ValueError, match="GGUF type Q8_K cannot be decoded: use a file of one of"):
        decode(torch.zeros(1, 292, dtype=torch.uint8), "Q8_K")


def test_a_flattened_tensor_gets_its_shape_back(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf", "flux")
    writer.add_array("comfy.gguf.orig_shape.x", [2, 3, 4])
    writer.add_tensor("x", np.arange(24, dtype=np.float32).reshape(4, 6))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    assert read_weights(tmp_path / "a.gguf")["x"].shape == (2, 3, 4)


@pytest.mark.parametrize("nested", [False, True])
def test_nf4(nested: bool) -> None:
    weight = matrix(12, 128)
    tensors = unpack_names({**nf4("x.weight", weight, nested=nested), "x.bias": weight[0]})
    assert tensors.keys() == {"x.weight", "x.bias"}
    packed = tensors["x.weight"]
    assert isinstance(packed, PackedTensor)
    decoded = packed.decode(torch.float32)
    assert decoded.shape == weight.shape
    assert error_of(decoded, weight) < 0.15
    assert torch.equal(torch.cat([part.decode(torch.float32) for part in packed.split([3, 9])]), decoded)


def test_nf4_of_rows_that_are_no_whole_blocks_is_decoded_at_once() -> None:
    weight = matrix(16, 12)
    tensors = unpack_names(nf4("x.weight", weight))
    assert isinstance(tensors["x.weight"], torch.Tensor)
    assert tensors["x.weight"].shape == weight.shape
    assert error_of(tensors["x.weight"], weight) < 0.15


def test_a_damaged_quantization_state_is_named() -> None:
    stored = nf4("x.weight", matrix())
    del stored["x.weight.absmax"]
    with pytest.raises(ValueError, match=r"the quantization state of x\.weight is damaged"):
        unpack_names(stored)


def test_int8() -> None:
    weight = matrix()
    packed = unpack_names(int8("x", weight))["x.weight"]
    assert isinstance(packed, PackedTensor)
    assert error_of(packed.decode(torch.float32), weight) < 0.01
    stored = int8("x", weight) | {"x.weight_format": torch.ones(1, dtype=torch.uint8)}
    with pytest.raises(ValueError, match="only NVIDIA cards read"):
        unpack_names(stored)


def packed_matrix(kind: str, weight: torch.Tensor, folder: Path) -> PackedTensor:
    if kind == "nf4":
        packed = unpack_names(nf4("w", weight))["w"]
    elif kind == "int8":
        packed = unpack_names(int8("w", weight))["w.weight"]
    else:
        write_gguf(folder / "w.gguf", {"w": weight}, kind)
        packed = read_weights(folder / "w.gguf")["w"]
    assert isinstance(packed, PackedTensor)
    return packed


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "nf4", "int8"])
def test_rows_can_be_cut_and_joined(kind: str, tmp_path: Path) -> None:
    packed = packed_matrix(kind, matrix(6, 64), tmp_path)
    whole = packed.decode(torch.float32)
    first, second = packed.chunk(2)
    assert torch.equal(first.decode(torch.float32), whole[:3])
    assert torch.equal(second.join([first]).decode(torch.float32), torch.cat([whole[3:], whole[:3]]))


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "nf4", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_computes_with_its_decoded_weight(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    packed = packed_matrix(kind, matrix(6, 64), tmp_path)
    bias = torch.arange(6.0)
    layer, inputs = PackedLinear(packed, bias), matrix(4, 64, seed=1).to(dtype)
    expected = nn.functional.linear(inputs, packed.decode(dtype), bias.to(dtype))
    assert torch.equal(layer(inputs), expected)
    assert layer.weight.dtype == torch.int8  # transformers' T5 casts activations to any other format
    assert torch.equal(layer.dense_weight(), packed.decode(torch.float32))
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert torch.equal(layer.cpu()(inputs), expected)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "nf4", "int8"])
def test_a_matrix_is_decoded_some_rows_at_a_time(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = packed_matrix(kind, matrix(7, 64), tmp_path)
    whole = matrices.decode_whole(torch.bfloat16)
    counts: list[int] = []
    decode_whole = type(matrices).decode_whole

    def count(self: PackedTensor, dtype: torch.dtype) -> torch.Tensor:
        counts.append(self.shape[0])
        return decode_whole(self, dtype)

    monkeypatch.setattr(type(matrices), "decode_whole", count)
    monkeypatch.setattr(packed_module, "_VALUES_AT_ONCE", 3 * 64)
    assert torch.equal(matrices.decode(torch.bfloat16), whole)
    assert counts == [3, 3, 1]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 64)
        self.inner = nn.ModuleDict({"layer": nn.Linear(64, 6), "plain": nn.Linear(64, 6, bias=False)})


def test_filling_a_model(tmp_path: Path) -> None:
    weight = matrix(6, 64)
    packed = packed_matrix("Q8_0", weight, tmp_path)
    with torch.device("meta"):
        model = Net()
    weights: dict[str, Any] = {
        "table.weight": packed, "inner.layer.weight": packed, "inner.layer.bias": weight[:, 0],
        "inner.plain.weight": weight, "unknown": weight,
    }  # fmt: skip
    missing, unknown = fill(model, weights, torch.bfloat16)
    assert (missing, unknown) == ([], ["unknown"])
    assert not weights  # nothing is kept beside the model
    assert isinstance(model.inner["layer"], PackedLinear)
    assert model.inner["layer"].bias.dtype == torch.bfloat16
    assert model.table.weight.dtype == model.inner["plain"].weight.dtype == torch.bfloat16
    assert error_of(model.table.weight.data, weight) < 0.01


def test_missing_and_misfit_tensors(tmp_path: Path) -> None:
    packed = packed_matrix("Q8_0", matrix(6, 64), tmp_path)
    with torch.device("meta"):
        model = Net()
    missing, _ = fill(model, {"inner.layer.weight": packed}, torch.float32)
    assert sorted(missing) == ["inner.layer.bias", "inner.plain.weight", "table.weight"]
    with torch.device("meta"):
        model = Net()
    with pytest.raises(RuntimeError, match=r"size mismatch for inner\.plain\.weight"):
        fill(model, {"inner.plain.weight": packed.split([2, 4])[0]}, torch.float32)


def test_plain_files_are_read_as_they_are(tmp_path: Path) -> None:
    save_file({"a": matrix()}, tmp_path / "a.safetensors")
    assert torch.equal(read_weights(tmp_path / "a.safetensors")["a"], matrix())  # type: ignore[arg-type]
