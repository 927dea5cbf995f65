"""Number formats of SDNQ of 2 to 8 bits: integers and small floats, and how their bits are packed into bytes."""

import re
from dataclasses import dataclass
from functools import cache

import torch

from invokeclone.engine.quantized.float8 import FLOAT8, to_float32

_INTEGER = re.compile(r"(?P<unsigned>u?)int(?P<bits>[2-8])")
_FLOAT = re.compile(r"float(?P<bits>[2-8])_e(?P<exponent>[1-5])m(?P<mantissa>\d)fn(?P<unsigned>u?)")
_SHORT_NAMES = {
    "fp8": "float8_e4m3fn", "fp7": "float7_e3m3fn", "fp6": "float6_e3m2fn", "fp5": "float5_e2m2fn",
    "fp4": "float4_e2m1fn", "fp3": "float3_e1m1fn", "fp2": "float2_e1m0fn",
}  # fmt: skip
_PLAIN = {"int8": torch.int8, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
"""Formats whose values are stored in a number format of torch."""
_LAYOUTS = {
    2: ((4, 1), tuple(((0, shift, 3),) for shift in (0, 2, 4, 6))),
    3: (
        (8, 3),
        (
            *(((byte, shift, 7),) for shift in (0, 3) for byte in range(3)),
            ((0, 6, 3), (2, 4, 4)),
            ((1, 6, 3), (2, 5, 4)),
        ),
    ),
    4: ((2, 1), (((0, 0, 15),), ((0, 4, 15),))),
    5: (
        (8, 5),
        (
            *(((byte, 0, 31),) for byte in range(5)),
            ((0, 5, 7), (3, 2, 24)),
            ((1, 5, 7), (4, 2, 24)),
            ((2, 5, 7), (3, 3, 16), (4, 4, 8)),
        ),
    ),
    6: ((4, 3), (*(((byte, 0, 63),) for byte in range(3)), ((0, 2, 48), (1, 4, 12), (2, 6, 3)))),
    7: ((8, 7), (*(((byte, 0, 127),) for byte in range(7)), tuple((n, n + 1, 64 >> n) for n in range(7)))),
    8: ((1, 1), (((0, 0, 255),),)),
}
"""By bits: values and bytes of a unit, and the bits of each value, as (byte, shift to the right, mask)."""


class UndecodableKind(ValueError):
    """There is no decoder for a number format of SDNQ."""


@dataclass(frozen=True)
class Kind:
    """A number format."""

    name: str
    bits: int
    is_unsigned: bool
    """Whether values begin at a zero point."""
    plain: torch.dtype | None
    """The number format of torch in which values are stored; None for packed bits."""
    lowest: int = 0
    """What is added to packed integers."""
    table: tuple[float, ...] = ()
    """The values of packed floats, by their bits."""

    @property
    def unit(self) -> tuple[int, int]:
        """Values and bytes of the smallest group of whole bytes."""
        return _LAYOUTS[self.bits][0]

    def decode(self, stored: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the values (rows, columns) of stored bytes (rows, bytes), before scales apply."""
        if self.plain is not None:
            values = stored.view(self.plain)
            return (to_float32(values) if self.plain in FLOAT8 else values).to(dtype)
        codes = _unpack(stored, self.bits)
        if self.table:
            return torch.tensor(self.table, dtype=dtype, device=stored.device)[codes.int()]
        return codes.to(dtype) + self.lowest if self.lowest else codes.to(dtype)


@cache
def kind_of(name: str) -> Kind:
    """Return a number format by SDNQ's name. Raises UndecodableKind."""
    full = _SHORT_NAMES.get(name.lower(), name.lower())
    if match := _INTEGER.fullmatch(full):
        bits, unsigned = int(match["bits"]), bool(match["unsigned"])
        lowest = 0 if unsigned else -(1 << (bits - 1))
        return Kind(full, bits, unsigned, _PLAIN.get(full), lowest)
    if full in _PLAIN:
        return Kind(full, 8, is_unsigned=False, plain=_PLAIN[full])
    if (match := _FLOAT.fullmatch(full)) and _is_whole(match):
        exponent, mantissa, unsigned = int(match["exponent"]), int(match["mantissa"]), bool(match["unsigned"])
        table = _float_values(exponent, mantissa, unsigned=unsigned)
        return Kind(full, int(match["bits"]), unsigned, None, table=table)
    raise UndecodableKind(
        f"weights of SDNQ's type {name} cannot be decoded: use a model of the types int2 to int8, uint2 to uint8, or floats "
        "of 2 to 8 bits"
    )


def _is_whole(match: re.Match[str]) -> bool:
    return int(match["bits"]) == int(match["exponent"]) + int(match["mantissa"]) + (not match["unsigned"])


def _float_values(exponent_bits: int, mantissa_bits: int, *, unsigned: bool) -> tuple[float, ...]:
    """Return the value of each pattern of bits: IEEE 754 with subnormal numbers, without infinity and NaN."""
    bias, steps = (1 << (exponent_bits - 1)) - 1, 1 << mantissa_bits
    values = []
    for code in range(1 << (exponent_bits + mantissa_bits)):
        exponent, fraction = code >> mantissa_bits, (code & (steps - 1)) / steps
        values.append((1 + fraction) * 2.0 ** (exponent - bias) if exponent else fraction * 2.0 ** (1 - bias))
    return tuple(values) if unsigned else (*values, *(-value for value in values))


def _unpack(stored: torch.Tensor, bits: int) -> torch.Tensor:
    """Return one byte per value (rows, columns) of packed bytes (rows, bytes)."""
    (count, size), layout = _LAYOUTS[bits]
    units = stored.view(torch.uint8).unflatten(-1, (-1, size))
    values = torch.empty((*units.shape[:-1], count), dtype=torch.uint8, device=stored.device)
    for number, sources in enumerate(layout):
        value = values[..., number]
        for position, (byte, shift, mask) in enumerate(sources):
            piece = (units[..., byte] >> shift) & mask
            value.copy_(piece) if position == 0 else value.bitwise_or_(piece)
    return values.flatten(-2)
