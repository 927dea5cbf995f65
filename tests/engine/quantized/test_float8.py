"""Matrices in 8-bit floats: scales of every shape, one byte per weight, number formats that cannot be decoded."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.float8 import to_float32, unpack_names
from invokeclone.engine.quantized.packed import PackedLinear, PackedTensor

SHAPE = (6, 64)


def matrix() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def text_tensor(**fields: str) -> torch.Tensor:
    return torch.tensor(list(json.dumps(fields).encode()), dtype=torch.uint8)


BLOCKS = torch.rand(2, 4, generator=torch.Generator().manual_seed(1)) + 0.5
SCALES = {
    "one": (torch.tensor(0.25), torch.tensor(0.25)),
    "one of a list": (torch.tensor([0.25]), torch.tensor(0.25)),
    "per row": (torch.arange(1.0, 7.0), torch.arange(1.0, 7.0)[:, None]),
    "per row, a column": (torch.arange(1.0, 7.0)[:, None], torch.arange(1.0, 7.0)[:, None]),
    "blocks": (BLOCKS, BLOCKS.repeat_interleave(3, 0).repeat_interleave(16, 1)),
}
"""What files have, and the factor of each value. InvokeAI spreads a list per row over columns, which is an error or wrong."""


@pytest.mark.parametrize("ending", ["weight_scale", "scale_weight", "weight_scale_inv"])
@pytest.mark.parametrize("kind", SCALES)
def test_scales_apply(ending: str, kind: str) -> None:
    scale, factor = SCALES[kind]
    values = (matrix() / factor).to(torch.float8_e4m3fn)
    tensors = {
        "a.x.weight": values, f"a.x.{ending}": scale, "a.x.input_scale": torch.ones(()), "a.x.scale_input": torch.ones(()),
        "a.x.comfy_quant": text_tensor(format="float8_e4m3fn"), "a.scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn),
        "a.x.bias": torch.ones(6).to(torch.float8_e4m3fn),
    }  # fmt: skip
    unpacked = unpack_names(tensors)
    assert unpacked.keys() == {"a.x.weight", "a.x.bias"}
    packed = unpacked["a.x.weight"]
    assert isinstance(packed, PackedTensor)
    expected = values.float() * factor
    assert torch.equal(packed.decode(torch.float32), expected)
    assert torch.equal(packed.decode(torch.bfloat16), expected.bfloat16())  # the product is rounded once
    assert torch.equal(packed.split([1, 5])[1].decode(torch.float32), expected[1:])
    first, second = packed.chunk(2)
    assert torch.equal(second.join([first]).decode(torch.float32), torch.cat([expected[3:], expected[:3]]))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_is_decoded_as_by_torch(kind: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(2, 128).view(kind)
    torch.testing.assert_close(to_float32(values), values.float(), rtol=0, atol=0, equal_nan=True)
    packed = unpack_names({"x.weight": values})["x.weight"]
    assert isinstance(packed, PackedTensor)
    torch.testing.assert_close(packed.decode(torch.bfloat16), values.bfloat16(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_without_scales_take_a_byte(kind: torch.dtype, tmp_path: Path) -> None:
    save_file({"x.weight": matrix().to(kind), "y.weight": matrix()}, tmp_path / "a.safetensors")
    weights = read_weights(tmp_path / "a.safetensors")
    packed = weights["x.weight"]
    assert isinstance(packed, PackedTensor)
    assert isinstance(weights["y.weight"], torch.Tensor)
    layer, inputs = PackedLinear(packed, None), torch.ones(1, 64)
    assert sum(parameter.nbytes for parameter in layer.parameters()) == 6 * 64
    assert torch.equal(layer(inputs), inputs @ matrix().to(kind).float().T)


def test_blocks_that_do_not_divide_the_matrix_are_of_128() -> None:
    values, scale = torch.ones(200, 130).to(torch.float8_e4m3fn), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    packed = unpack_names({"x.weight": values, "x.weight_scale": scale})["x.weight"]
    assert isinstance(packed, PackedTensor)
    decoded = packed.decode(torch.float32)
    assert decoded[99, 64] == 1
    assert (decoded[0, 65], decoded[100, 64], decoded[199, 129]) == (2, 3, 4)
    odd = unpack_names({"x.weight": torch.ones(129, 130).to(torch.float8_e4m3fn), "x.weight_scale": scale})["x.weight"]
    assert isinstance(odd, PackedTensor)
    assert [odd.decode(torch.float32)[row, 0] for row in (127, 128)] == [1, 3]


def test_tensors_of_other_formats_with_scales_are_multiplied() -> None:
    tensors = {"x.weight": matrix().bfloat16(), "x.weight_scale": torch.tensor(2.0)}
    assert torch.equal(unpack_names(tensors)["x.weight"], matrix().bfloat16().float() * 2)  # type: ignore[arg-type]
    kernel = torch.ones(2, 3, 1, 1).to(torch.float8_e4m3fn)
    convolution = unpack_names({"x.weight": kernel, "x.scale_weight": torch.tensor([2.0, 3.0])})["x.weight"]
    assert isinstance(convolution, torch.Tensor)
    assert convolution[:, 0, 0, 0].tolist() == [2.0, 3.0]


def test_a_scale_without_a_weight_is_a_tensor_like_others() -> None:
    assert unpack_names({"x.weight_scale": torch.ones(2)}).keys() == {"x.weight_scale"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x.weight_scale": torch.tensor(torch.nan)}, r"scales of x\.weight are not numbers: the file is damaged"),
        ({"x.weight_scale": torch.ones(5)}, "does not fit"),
        ({"x.weight_scale": torch.ones(1, 2, 3)}, "does not fit"),
        ({"x.weight_scale": torch.ones(0)}, "does not fit"),
        ({"x.weight": torch.ones(8).to(torch.float8_e4m3fn), "x.weight_scale": torch.ones(3)}, "does not fit"),
        ({"x.comfy_quant": text_tensor(format="nvfp4")}, "number format nvfp4, which cannot be decoded: use a file in"),
        ({"x.weight_scale_2": torch.ones(())}, "number format float4, which cannot be decoded"),
        ({"x.comfy_quant": text_tensor(other="a")}, r"x\.comfy_quant is damaged"),
        ({"x.weight": torch.zeros(SHAPE, dtype=torch.uint8)}, r"stored as torch\.uint8, which cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_is_named(changes: dict[str, torch.Tensor], reason: str, tmp_path: Path) -> None:
    tensors = {"x.weight": matrix().to(torch.float8_e4m3fn), "x.weight_scale": torch.tensor(0.5), **changes}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{reason}"):
        read_weights(tmp_path / "a.safetensors")
