"""SDNQ: matrices decode to what the package sdnq decodes them to; settings, inferred types, what cannot be decoded."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedLinear, PackedTensor
from invokeclone.engine.quantized.sdnq import unpack_names
from invokeclone.engine.quantized.sdnq_types import kind_of

DATA = Path(__file__).parents[2] / "data" / "sdnq_matrices.safetensors"
"""Written by scripts/make_sdnq_matrices.py."""


def cases() -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of each case and type."""
    found: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, tensor in load_file(DATA).items():
        case, _, part = name.rpartition("/")
        found[case][part] = tensor
    return found


CASES = cases()


def parts(case: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in CASES[case].items() if name != "expected"}


def decoded(value: torch.Tensor | PackedTensor) -> torch.Tensor:
    return value.decode(torch.float32) if isinstance(value, PackedTensor) else value


@pytest.mark.parametrize("case", CASES)
def test_matrices_decode_as_the_package_does(case: str) -> None:
    kind, expected = case.split("/")[1], CASES[case]["expected"]
    tensors = unpack_names(parts(case) | {"x.bias": expected[:, 0]}, {"weights_dtype": kind})
    assert tensors.keys() == {"x.weight", "x.bias"}
    packed = tensors["x.weight"]
    assert isinstance(packed, PackedTensor) == (not case.startswith("odd/"))
    assert packed.shape == expected.shape
    assert torch.equal(decoded(packed), expected)


@pytest.mark.parametrize("case", ["groups/uint4", "correction/uint4", "products/int8", "rows/fp5", "rows/int6"])
def test_rows_are_cut_and_layers_compute(case: str) -> None:
    packed, expected = (
        unpack_names(parts(case), {"weights_dtype": case.split("/")[1]})["x.weight"],
        CASES[case]["expected"],
    )
    assert isinstance(packed, PackedTensor)
    first, second = packed.chunk(2)
    half = len(expected) // 2
    assert torch.allclose(second.decode(torch.float32), expected[half:], atol=1e-6)
    joined = second.join([first]).decode(torch.float32)
    assert torch.allclose(joined, torch.cat([expected[half:], expected[:half]]), atol=1e-6)
    layer, inputs = PackedLinear(packed, expected[:, 0]), torch.ones(2, expected.shape[1])
    assert torch.allclose(layer(inputs), torch.nn.functional.linear(inputs, expected, expected[:, 0]), atol=1e-5)
    assert torch.equal(layer.dense_weight(), packed.decode(torch.float32))
    assert {parameter.dtype for name, parameter in layer.named_parameters() if name != "bias"} == {torch.int8}
    stored = sum(parameter.nbytes for name, parameter in layer.named_parameters() if name != "bias")
    assert stored == sum(tensor.nbytes for tensor in parts(case).values())


@pytest.mark.parametrize("kind", ["uint4", "int5", "uint5", "int7", "int8", "uint8", "float8_e4m3fn", "float8_e5m2"])
def test_types_are_inferred_in_files_without_settings(kind: str, tmp_path: Path) -> None:
    """Single files may come without settings; the bits follow from how they are packed."""
    save_file(parts(f"rows/{kind}"), tmp_path / "a.safetensors")
    assert torch.equal(decoded(read_weights(tmp_path / "a.safetensors")["x.weight"]), CASES[f"rows/{kind}"]["expected"])


def test_ambiguous_types_need_settings(tmp_path: Path) -> None:
    save_file(parts("rows/int6"), tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match=r"a\.safetensors: x\.weight: its type cannot be inferred .* quantization_config"
    ):
        read_weights(tmp_path / "a.safetensors")
    (tmp_path / "quantization_config.json").write_text('{"quant_method": "sdnq", "weights_dtype": "int6"}')
    assert torch.equal(decoded(read_weights(tmp_path / "a.safetensors")["x.weight"]), CASES["rows/int6"]["expected"])
    metadata = {"quantization_config": '{"weights_dtype": "int6"}'}
    (tmp_path / "b").mkdir()
    save_file(parts("rows/int6"), tmp_path / "b" / "a.safetensors", metadata)
    read_weights(tmp_path / "b" / "a.safetensors")


@pytest.mark.parametrize(
    "settings",
    [
        {"weights_dtype": "uint4", "modules_dtype_dict": {"int5": ["x.weight"]}},
        {"weights_dtype": "uint4", "modules_dtype_dict": {"int5": ["x"], "int8": [".x"]}},
        {"weights_dtype": "uint4", "modules_dtype_dict": {"minimum_5bit": [".x"]}},
        {"weights_dtype": "uint4", "modules_dtype_dict": {"int8": ["y.*"], "minimum_int3bits": ["q"], "int5": ["x.*"]}},
        {"weights_dtype": "uint4", "modules_quant_config": {"x": {"weights_dtype": "int5"}}},
        {"weights_dtype": "int5", "modules_dtype_dict": {"minimum_4bit": ["x"]}},
    ],
)
def test_layers_have_types_of_their_own(settings: dict[str, Any]) -> None:
    packed = unpack_names(parts("rows/int5"), settings)["x.weight"]
    assert torch.equal(decoded(packed), CASES["rows/int5"]["expected"])


def test_patterns_are_matched_in_a_time_that_their_wildcards_do_not_multiply() -> None:
    """A regular expression with as many wildcards takes years."""
    name = "t" * 200 + ".weight"
    tensors = {name.replace("weight", kind.partition(".")[2]): value for kind, value in parts("rows/int5").items()}
    settings = {"weights_dtype": "int5", "modules_dtype_dict": {"uint4": ["*t*" * 20 + "z", "?*", "[t]*"]}}
    assert torch.equal(decoded(unpack_names(tensors, settings)[name]), CASES["rows/int5"]["expected"])


def test_unknown_types_and_settings_are_named() -> None:
    with pytest.raises(ValueError, match="type int13 cannot be decoded: use a model of the types int2 to int8"):
        unpack_names(parts("rows/int8"), {"weights_dtype": "int13"})
    with pytest.raises(ValueError, match="type float5_e4m3fn cannot be decoded"):
        kind_of("float5_e4m3fn")
    for setting in ("use_hadamard", "use_codebook"):
        with pytest.raises(
            ValueError, match=rf"x\.weight is quantized by SDNQ with {setting}, which cannot be decoded"
        ):
            unpack_names(parts("rows/int8"), {"weights_dtype": "int8", setting: True})
    with pytest.raises(ValueError, match="with scale_2"):
        unpack_names(parts("rows/int8") | {"x.scale_2": torch.ones(1)}, {"weights_dtype": "int8"})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x.scale": torch.full((4, 1), torch.nan)}, "its scales are not numbers"),
        ({"x.zero_point": torch.full((4, 1), torch.inf)}, "its scales are not numbers"),
        ({"x.scale": torch.ones(3, 1)}, "does not fit its 3 scales"),
        ({"x.weight": torch.zeros(7, dtype=torch.uint8)}, "does not fit"),
        ({"x.zero_point": None}, "has no zero_point"),
        ({"x.scale": torch.ones(4, 1, 1, 1)}, "quantized convolutions"),
        ({"x.scale": torch.ones(0)}, "does not fit its 0 scales"),
        ({"x.weight": torch.tensor(1, dtype=torch.uint8), "x.scale": torch.ones(())}, "is damaged: "),
        ({"x.svd_up": torch.ones(4, 2), "x.svd_down": torch.ones(3, 8)}, "low-rank correction does not fit"),
        ({"x.svd_up": torch.ones(4), "x.svd_down": torch.ones(4, 8)}, "is damaged: "),
    ],
)
def test_damaged_states_are_named(changes: dict[str, torch.Tensor | None], reason: str) -> None:
    tensors = {name: value for name, value in (parts("rows/uint4") | changes).items() if value is not None}
    with pytest.raises(ValueError, match=rf"x\.weight.*{reason}"):
        unpack_names(tensors, {"weights_dtype": "uint4"})


def test_scales_of_other_layers_are_tensors_like_others() -> None:
    """Norms of Black Forest Labs' files have a `scale` and no weight."""
    tensors = {"norm.scale": torch.ones(2), "y.weight": torch.ones(2, 2), "y.svd_up": torch.ones(2)}
    assert unpack_names(tensors).keys() == tensors.keys()


def test_a_weight_of_floating_point_with_a_scale_is_not_quantized() -> None:
    tensors = {"norm.weight": torch.ones(8), "norm.scale": torch.ones(8)}
    assert unpack_names(tensors) == tensors
    with pytest.raises(ValueError, match=r"norm\.weight: it is stored as torch\.float32, which is not int8"):
        unpack_names(tensors, {"weights_dtype": "int8"})


@pytest.mark.parametrize("layers", [["x"], "x", {"x": "int5"}])
def test_damaged_settings_of_layers_are_not_used(layers: Any) -> None:
    packed = unpack_names(parts("rows/int5"), {"weights_dtype": "int5", "modules_quant_config": layers})["x.weight"]
    assert torch.equal(decoded(packed), CASES["rows/int5"]["expected"])
