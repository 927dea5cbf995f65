"""Matrices quantized by SDNQ (SD.Next): integers or small floats with scales per row or group, and low-rank corrections.

As in InvokeAI, products are in the number format in which the matrix is decoded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from invokeclone.engine.quantized.packed import PackedTensor
from invokeclone.engine.quantized.sdnq_types import Kind, kind_of
from invokeclone.graph.checkpoints import checkpoint

_WEIGHT = ".weight"
_STATES = ("scale", "zero_point", "svd_up", "svd_down")
_UNUSABLE_STATES = ("scale_2", "scale_zero_point", "zero_point_scale", "zero_point_2")
"""Names of tensors of scales that are themselves quantized."""
_UNUSABLE_SETTINGS = ("use_hadamard", "use_codebook", "use_codebook_scale", "scale_dtype", "zero_point_dtype")
_MINIMUM = re.compile(r"(?:minimum)?[-_]?(?P<kind>u?int)?(?P<bits>\d+)[-_]?bits?")
_OTHER_WILDCARDS = re.compile(r"[?[]")
"""Wildcards of fnmatch that have no meaning in SDNQ's patterns."""
_LARGEST_UNSIGNED = 4
"""Bits up to which a minimum means an unsigned type."""
_NEEDS_SETTINGS = "download the file of settings, quantization_config.json, into the same folder"

Tensors = Mapping[str, torch.Tensor | PackedTensor]


@dataclass(frozen=True)
class SDNQTensor(PackedTensor):
    """A matrix with the parts `values`, `scales` (rows, groups), `zero_points` likewise, and the factors of a correction.

    `svd_up` (rows, rank) is a part and `svd_down` (rank, columns) is shared.
    """

    kind: Kind = kind_of("int8")

    def decode_whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format, decoded at once."""
        scales, zero_points = self.parts["scales"].to(dtype)[..., None], self.parts.get("zero_points")
        rows, groups, _ = scales.shape
        values = self.kind.decode(self.parts["values"], dtype).reshape(rows, groups, -1)
        if zero_points is None:
            values = values * scales
        else:
            values = torch.addcmul(zero_points.to(dtype)[..., None], values, scales)
        matrix = values.reshape(self.shape)
        if (up := self.parts.get("svd_up")) is not None:
            matrix += up.to(dtype) @ self.shared["svd_down"].to(dtype)
        return matrix


def unpack_names(tensors: Tensors, settings: Mapping[str, Any] | None = None) -> dict[str, torch.Tensor | PackedTensor]:
    """Return a file's tensors with each weight and its scales, if it has some, as one packed tensor.

    `settings` is SDNQ's `quantization_config`, which has the types of the weights; without it, they are inferred from
    the tensors. Raises ValueError for types and settings that cannot be decoded, and for damaged scales.
    """
    result: dict[str, torch.Tensor | PackedTensor] = {}
    for name, value in tensors.items():
        checkpoint()
        path, _, kind = name.rpartition(".")
        is_quantized = _is_quantized(path, tensors, settings or {})
        if is_quantized and name.endswith(_WEIGHT):
            result[name] = _pack(path, tensors, settings or {})
        elif not (is_quantized and kind in (*_STATES, *_UNUSABLE_STATES)):
            result[name] = value
    return result


def _is_quantized(path: str, tensors: Tensors, settings: Mapping[str, Any]) -> bool:
    """Return whether a layer has a quantized weight; without settings, one in a format of more bytes is not quantized."""
    weight = tensors.get(path + _WEIGHT)
    if not isinstance(weight, torch.Tensor) or f"{path}.scale" not in tensors:
        return False
    return bool(settings) or weight.dtype.itemsize == 1


def _pack(path: str, tensors: Tensors, settings: Mapping[str, Any]) -> torch.Tensor | PackedTensor:
    """Return the weight of the layer `path`. One whose rows are not whole bytes is decoded."""
    name = path + _WEIGHT
    _check_settings(name, tensors, settings)
    state = {kind: tensors[f"{path}.{kind}"] for kind in ("weight", *_STATES) if f"{path}.{kind}" in tensors}
    try:
        packed = _matrix(state, _kind(name, state, settings))
        return packed.decode_whole(torch.float32) if packed.kind.plain == torch.float32 else packed
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise ValueError(f"the quantization state of {name} is damaged: {error}") from error
    except ValueError as error:
        raise type(error)(f"{name}: {error}") from error


def _check_settings(name: str, tensors: Tensors, settings: Mapping[str, Any]) -> None:
    path = name.removesuffix(_WEIGHT)
    settings = {**settings, **_layer_settings(name, settings)}
    unusable = [state for state in _UNUSABLE_STATES if f"{path}.{state}" in tensors]
    unusable += [setting for setting in _UNUSABLE_SETTINGS if settings.get(setting) not in (None, False, "none")]
    if unusable:
        raise ValueError(
            f"{name} is quantized by SDNQ with {unusable[0]}, which cannot be decoded: use a model without it"
        )


def _kind(name: str, state: Mapping[str, Any], settings: Mapping[str, Any]) -> Kind:
    """Return the type of a weight, by the settings or else by its tensors."""
    kind_name = _layer_settings(name, settings).get("weights_dtype")
    if kind_name or "weights_dtype" in settings:
        return kind_of(str(kind_name) if kind_name else _kind_name(name, settings))
    weight, sign = state["weight"], "u" if "zero_point" in state else ""
    for plain in ("int8", "float8_e4m3fn", "float8_e5m2"):
        if weight.dtype == kind_of(plain).plain:
            return kind_of(plain)
    if weight.ndim == 1:  # 2 and 4 bits; those of 2 bits are not published in single files
        return kind_of(f"{sign}int4")
    if weight.shape[0] == state["scale"].shape[0]:
        return kind_of(f"{sign}int8")
    bits = {5: 5, 7: 7}.get(weight.shape[-1])
    if bits is None:
        raise ValueError(f"its type cannot be inferred from its shape {list(weight.shape)}: {_NEEDS_SETTINGS}")
    return kind_of(f"{sign}int{bits}")


def _kind_name(name: str, settings: Mapping[str, Any]) -> str:
    """Return the name of the type of a weight: that of the first list with its name, else the general one."""
    general = str(settings["weights_dtype"])
    for kind, names in (settings.get("modules_dtype_dict") or {}).items():
        if not _matches(name, names):
            continue
        if (minimum := _MINIMUM.fullmatch(str(kind).lower())) is None:
            return str(kind)
        bits = int(minimum["bits"])
        if kind_of(general).bits < bits:
            unsigned = minimum["kind"] == "uint" or (minimum["kind"] is None and bits <= _LARGEST_UNSIGNED)
            return f"{'u' if unsigned else ''}int{bits}"
    return general


def _layer_settings(name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of one weight."""
    listed = settings.get("modules_quant_config")
    if not isinstance(listed, dict):
        return {}
    layers = (layer for pattern, layer in listed.items() if _matches(name, [pattern]) and isinstance(layer, dict))
    return next(layers, {})


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a weight is listed: by its name, a part of it, its beginning (`.x`) or a pattern (`x.*`)."""
    parts = name.split(".")
    for pattern in patterns:
        if pattern.startswith("."):
            is_listed = name.startswith(pattern[1:])
        else:
            glob = _OTHER_WILDCARDS.sub(r"[\g<0>]", pattern) + "*"
            is_listed = pattern in (name, *parts) or ("*" in pattern and fnmatchcase(name, glob))
        if is_listed:
            return True
    return False


def _matrix(state: Mapping[str, torch.Tensor], kind: Kind) -> SDNQTensor:
    weight, scale, zero_point = state["weight"], state["scale"], state.get("zero_point")
    if kind.is_unsigned and zero_point is None:
        raise ValueError(f"it is stored as {kind.name} but has no zero_point: its file is damaged")
    if kind.plain not in (None, weight.dtype):
        raise ValueError(f"it is stored as {weight.dtype}, which is not {kind.name}: its file is damaged")
    if scale.ndim > 3:  # noqa: PLR2004 - rows, groups, 1
        raise ValueError("quantized convolutions cannot be decoded: use a model without them")
    if _is_transposed(weight, scale):
        weight, scale = weight.T, scale.T
        zero_point = None if zero_point is None else zero_point.T
    rows = scale.shape[0] if scale.numel() > 1 else weight.shape[0]
    count, size = kind.unit
    columns = weight.nbytes * count // size // rows
    is_whole = rows * columns * size == weight.nbytes * count
    if not is_whole or not scale.numel() or columns % max(1, scale.numel() // rows):
        raise ValueError(f"its size does not fit its {scale.numel()} scales: its file is damaged")
    parts = {"values": weight.contiguous(), "scales": _by_row(scale, rows)}
    parts |= {} if zero_point is None else {"zero_points": _by_row(zero_point, rows)}
    shared = {}
    if "svd_up" in state:
        up, down = state["svd_up"], state["svd_down"]
        up, down = (up, down) if up.shape[0] == rows else (up.T, down.T)
        if (up.shape[0], *down.shape) != (rows, up.shape[1], columns) or not (_is_finite(up) and _is_finite(down)):
            raise ValueError("its low-rank correction does not fit it: its file is damaged")
        parts["svd_up"], shared["svd_down"] = up.contiguous(), down.contiguous()
    if columns % count == 0:
        parts["values"] = parts["values"].reshape(rows, -1)
    else:  # rows that are not whole bytes
        parts["values"] = kind.decode(parts["values"].reshape(1, -1), torch.float32).reshape(rows, columns)
        kind = Kind(kind.name, kind.bits, kind.is_unsigned, torch.float32)
    return SDNQTensor(parts, torch.Size([rows, columns]), shared=shared, kind=kind)


def _is_transposed(weight: torch.Tensor, scale: torch.Tensor) -> bool:
    """Return whether a weight is stored as (inputs, outputs), for SDNQ's products of integers."""
    is_row = scale.ndim == 2 and scale.shape[0] == 1 and scale.numel() > 1  # noqa: PLR2004
    return bool(is_row and weight.ndim == 2 and weight.shape[1] == scale.shape[1])  # noqa: PLR2004


def _by_row(values: torch.Tensor, rows: int) -> torch.Tensor:
    """Return scales or zero points as (rows, groups). Raises ValueError unless they are finite."""
    if not _is_finite(values):
        raise ValueError("its scales are not numbers: its file is damaged")
    return values.reshape(1, 1).repeat(rows, 1) if values.numel() == 1 else values.reshape(rows, -1).contiguous()


def _is_finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values.float()).all())
