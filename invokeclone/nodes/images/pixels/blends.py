"""Blend modes of layers in several color spaces. Arrays (height, width, 3) are sRGB from 0 to 1."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from invokeclone.nodes.images.pixels import colors

Floats = NDArray[np.float64]
Mix = Callable[[Floats, Floats], Floats]

TINY = 1e-6


@dataclass(frozen=True)
class Gamut:
    """Gamut mapping settings: `adapt` and `steps` as in `colors.clip_to_gamut`."""

    adapt: float = 0.0
    steps: int = colors.STEPS

    def to_srgb(self, linear: Floats) -> Floats:
        """Return linear RGB as sRGB with all colors within the gamut."""
        lch = colors.polar(colors.oklab_of(linear))
        return np.clip(colors.srgb_of(colors.linear_of_oklab(colors.cartesian(self.clip_chroma(lch)))), 0.0, 1.0)

    def clip_chroma(self, lch: Floats) -> Floats:
        """Return Oklch with all colors within the sRGB gamut."""
        return colors.clip_to_gamut(lch, self.adapt, self.steps)


def _oklch(srgb: Floats) -> Floats:
    return colors.polar(colors.oklab_of(colors.linear_of(srgb)))


def parts_of(srgb: Floats, space: str) -> Floats:
    """Return hue, saturation or chroma, and lightness in a space.

    Hue is a fraction of a turn, ranges depend on the space.
    """
    match space:
        case "HSV (RGB)":
            return colors.hsv_of(srgb)
        case "Okhsl":
            return colors.okhsl_of(_oklch(srgb))
        case "Okhsv":
            return colors.okhsv_of(_oklch(srgb))
        case "Oklch (Oklab)":
            return _oklch(srgb)[..., ::-1]
        case "LCh (CIELab)":
            return colors.polar(colors.cielab_of(colors.linear_of(srgb)))[..., ::-1]
        case _:
            return colors.hsl_of(srgb)


def srgb_of_parts(parts: Floats, space: str, gamut: Gamut) -> Floats:
    """Invert `parts_of`, with all colors within sRGB."""
    if space == "LCh (CIELab)":
        return gamut.to_srgb(colors.linear_of_cielab(colors.cartesian(parts[..., ::-1])))
    if space == "Oklch (Oklab)":
        return _srgb_of_oklch(gamut.clip_chroma(parts[..., ::-1]))
    max_saturation = colors.OVERFULL if space == "Okhsl" else 1.0
    hue, fullness, light = (
        parts[..., 0] % 1.0,
        np.clip(parts[..., 1], 0.0, max_saturation),
        np.clip(parts[..., 2], 0.0, 1.0),
    )
    parts = np.stack([hue, fullness, light], axis=-1)
    match space:
        case "HSV (RGB)":
            return colors.srgb_of_hsv(parts)
        case "Okhsl":
            return _srgb_of_oklch(colors.oklch_of_okhsl(parts))
        case "Okhsv":
            return _srgb_of_oklch(colors.oklch_of_okhsv(parts))
        case _:
            return colors.srgb_of_hsl(parts)


def _srgb_of_oklch(lch: Floats) -> Floats:
    return np.clip(colors.srgb_of(colors.linear_of_oklab(colors.cartesian(lch))), 0.0, 1.0)


def _screen(base: Floats, upper: Floats) -> Floats:
    return base + upper - base * upper


def _hard_light(base: Floats, upper: Floats) -> Floats:
    return np.where(upper <= 0.5, 2 * base * upper, _screen(base, 2 * upper - 1))  # noqa: PLR2004 - half


def _soft_light(base: Floats, upper: Floats) -> Floats:
    curve = np.where(base <= 0.25, ((16 * base - 12) * base + 4) * base, np.sqrt(base))  # noqa: PLR2004 - a quarter
    return base + (2 * upper - 1) * np.where(upper <= 0.5, base * (1 - base), curve - base)  # noqa: PLR2004 - half


def _divide(base: Floats, upper: Floats) -> Floats:
    return np.where(base <= TINY, 0.0, base / np.maximum(upper, TINY))


def _burn(base: Floats, upper: Floats) -> Floats:
    return np.where(base >= 1 - TINY, 1.0, 1 - np.minimum(1.0, (1 - base) / np.maximum(upper, TINY)))


def _dodge(base: Floats, upper: Floats) -> Floats:
    return np.where(base <= TINY, 0.0, np.minimum(1.0, base / np.maximum(1 - upper, TINY)))


def _vivid_light(base: Floats, upper: Floats) -> Floats:
    return np.where(upper <= 0.5, _burn(base, 2 * upper), _dodge(base, 2 * upper - 1))  # noqa: PLR2004 - half


BY_VALUE: dict[str, Mix] = {
    "Lighten Only": np.maximum,
    "Darken Only": np.minimum,
    "Linear Dodge (Add)": np.add,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "Divide": _divide,
    "Screen": _screen,
    "Overlay": lambda base, upper: _hard_light(upper, base),
    "Linear Burn": lambda base, upper: base + upper - 1,
    "Difference": lambda base, upper: np.abs(base - upper),
    "Hard Light": _hard_light,
    "Soft Light": _soft_light,
    "Vivid Light": _vivid_light,
    "Linear Light": lambda base, upper: base + 2 * upper - 1,
    "Color Burn": _burn,
    "Color Dodge": _dodge,
}
"""Modes that combine single values: each channel in RGB, only the lightness in other spaces."""

BY_PART = {"Hue": (0,), "Saturation": (1,), "Color": (0, 1), "Luminosity": (2,)}
"""Modes that take hue, saturation or lightness from the upper layer and the rest from the base."""


def blend(base: Floats, upper: Floats, mode: str, space: str, gamut: Gamut) -> Floats:
    """Return the blended color where both layers are opaque."""
    if mode == "Normal":
        return upper
    if mode.endswith("(EAL)"):
        lighter = colors.achromatic_lightness(upper) > colors.achromatic_lightness(base)
        return np.where((lighter == mode.startswith("Lighten"))[..., None], upper, base)
    if mode in BY_VALUE and space == "RGB":
        return np.clip(BY_VALUE[mode](base, upper), 0.0, 1.0)
    if mode in BY_VALUE and space == "Linear RGB":
        linear = BY_VALUE[mode](colors.linear_of(base), colors.linear_of(upper))
        return colors.srgb_of(np.clip(linear, 0.0, 1.0))
    parts, other = parts_of(base, space).copy(), parts_of(upper, space)
    if mode in BY_PART:
        for part in BY_PART[mode]:
            parts[..., part] = other[..., part]
    else:
        light, over = (np.clip(layer[..., 2], 0.0, 1.0) for layer in (parts, other))
        parts[..., 2] = np.clip(BY_VALUE[mode](light, over), 0.0, 1.0)
    return srgb_of_parts(parts, space, gamut)


def composite(base: Floats, upper: Floats, mode: str, space: str, gamut: Gamut) -> Floats:
    """Blend a layer over another one, both with alpha as the fourth channel; returns four channels."""
    below, above = base[..., 3:], upper[..., 3:]
    whole = above + below * (1 - above)
    overlap = blend(base[..., :3], upper[..., :3], mode, space, gamut)
    layers = [upper[..., :3], overlap, base[..., :3]]
    if space == "Linear RGB":
        layers = [colors.linear_of(layer) for layer in layers]
    result = above * (1 - below) * layers[0] + above * below * layers[1] + (1 - above) * below * layers[2]
    result /= np.maximum(whole, TINY)
    if space == "Linear RGB":
        result = colors.srgb_of(result)
    return np.concatenate([result, whole], axis=-1)


def rotate_hue(srgb: Floats, fraction: float, space: str, gamut: Gamut) -> Floats:
    """Return colors with their hue rotated by a fraction of a turn."""
    parts = parts_of(srgb, space).copy()
    parts[..., 0] = (parts[..., 0] + fraction) % 1.0
    return srgb_of_parts(parts, space, gamut)


def lightness(srgb: Floats) -> Floats:
    """Return the CIELAB lightness (height, width) from 0 to 1."""
    return colors.cielab_of(colors.linear_of(srgb))[..., 0]


def with_lightness(srgb: Floats, light: Floats, gamut: Gamut) -> Floats:
    """Return colors with the given CIELAB lightness."""
    lab = colors.cielab_of(colors.linear_of(srgb))
    lab[..., 0] = light
    return gamut.to_srgb(colors.linear_of_cielab(lab))


def gray_of(light: Floats) -> Floats:
    """Return the gray sRGB value (height, width) of a CIELAB lightness."""
    lab = np.stack([np.clip(light, 0.0, 1.0), np.zeros_like(light), np.zeros_like(light)], axis=-1)
    return colors.srgb_of(colors.linear_of_cielab(lab))[..., 1]
