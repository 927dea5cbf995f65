"""Color space conversions on arrays (height, width, 3) of floats; sRGB is 0 to 1, hues are fractions of a turn.

Oklab, Okhsl and Okhsv are as published by Björn Ottosson in 2020 and 2021; CIELAB uses D65, with lightness 0 to 1.
"""

import itertools
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]

LMS_OF_LINEAR = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
OKLAB_OF_ROOTS = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
LINEAR_OF_LMS = np.linalg.inv(LMS_OF_LINEAR)
ROOTS_OF_OKLAB = np.linalg.inv(OKLAB_OF_ROOTS)
XYZ_OF_LINEAR = np.array([
    [0.4123907993, 0.3575843394, 0.1804807884],
    [0.2126390059, 0.7151686788, 0.0721923154],
    [0.0193308187, 0.1191947798, 0.9505321522],
])  # fmt: skip
LINEAR_OF_XYZ = np.linalg.inv(XYZ_OF_LINEAR)
WHITE = XYZ_OF_LINEAR.sum(axis=1)
LAB_EDGE = 6 / 29
GAMMA_FROM = 0.0031308
"""Linear value above which sRGB's transfer function is a power curve."""
TINY = 1e-12


def _times(layers: Floats, matrix: Floats) -> Floats:
    """Return each pixel multiplied by a matrix."""
    product: Floats = layers @ matrix.T
    return product


def linear_of(srgb: Floats) -> Floats:
    """Return sRGB as linear RGB."""
    return np.where(srgb <= GAMMA_FROM * 12.92, srgb / 12.92, (np.maximum(srgb, 0.0) + 0.055) ** 2.4 / 1.055**2.4)


def srgb_of(linear: Floats) -> Floats:
    """Return linear RGB as sRGB."""
    return np.where(linear <= GAMMA_FROM, linear * 12.92, 1.055 * np.maximum(linear, 0.0) ** (1 / 2.4) - 0.055)


def oklab_of(linear: Floats) -> Floats:
    """Return linear RGB as Oklab: lightness, green to red, blue to yellow."""
    return _times(np.cbrt(_times(linear, LMS_OF_LINEAR)), OKLAB_OF_ROOTS)


def linear_of_oklab(lab: Floats) -> Floats:
    """Return Oklab as linear RGB, which may be outside 0 to 1."""
    roots = _times(lab, ROOTS_OF_OKLAB)
    return _times(roots * roots * roots, LINEAR_OF_LMS)


def cielab_of(linear: Floats) -> Floats:
    """Return linear RGB as CIELAB with all components divided by 100."""
    ratio = _times(linear, XYZ_OF_LINEAR) / WHITE
    root = np.where(ratio > LAB_EDGE**3, np.cbrt(ratio), ratio / (3 * LAB_EDGE**2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([1.16 * y - 0.16, 5.0 * (x - y), 2.0 * (y - z)], axis=-1)


def linear_of_cielab(lab: Floats) -> Floats:
    """Return CIELAB, divided by 100, as linear RGB, which may be outside 0 to 1."""
    y = (lab[..., 0] + 0.16) / 1.16
    root = np.stack([y + lab[..., 1] / 5.0, y, y - lab[..., 2] / 2.0], axis=-1)
    ratio = np.where(root > LAB_EDGE, root**3, 3 * LAB_EDGE**2 * (root - 4 / 29))
    return _times(ratio * WHITE, LINEAR_OF_XYZ)


def polar(lab: Floats) -> Floats:
    """Return lightness, chroma and hue of a Lab color."""
    a, b = lab[..., 1], lab[..., 2]
    return np.stack([lab[..., 0], np.hypot(a, b), np.arctan2(b, a) / (2 * np.pi) % 1.0], axis=-1)


def cartesian(lch: Floats) -> Floats:
    """Invert `polar`."""
    angle = lch[..., 2] * (2 * np.pi)
    return np.stack([lch[..., 0], lch[..., 1] * np.cos(angle), lch[..., 1] * np.sin(angle)], axis=-1)


def hsv_of(srgb: Floats) -> Floats:
    """Return hue, saturation and value of sRGB."""
    value, low = srgb.max(axis=-1), srgb.min(axis=-1)
    span = value - low
    return np.stack([_hue(srgb, value, span), span / np.maximum(value, TINY), value], axis=-1)


def hsl_of(srgb: Floats) -> Floats:
    """Return hue, saturation and lightness of sRGB."""
    high, low = srgb.max(axis=-1), srgb.min(axis=-1)
    light, span = (high + low) / 2, high - low
    return np.stack([_hue(srgb, high, span), span / np.maximum(1 - np.abs(2 * light - 1), TINY), light], axis=-1)


def srgb_of_hsv(hsv: Floats) -> Floats:
    """Invert `hsv_of`."""
    hue, saturation, value = (hsv[..., i] for i in range(3))
    return (value * (1 - saturation))[..., None] + (value * saturation)[..., None] * _pure(hue)


def srgb_of_hsl(hsl: Floats) -> Floats:
    """Invert `hsl_of`."""
    hue, saturation, light = (hsl[..., i] for i in range(3))
    span = saturation * (1 - np.abs(2 * light - 1))
    return np.asarray((light - span / 2)[..., None] + span[..., None] * _pure(hue))


def _hue(srgb: Floats, high: Floats, span: Floats) -> Floats:
    """Return the hue as a fraction of a turn; 0 for gray."""
    red, green, blue = (srgb[..., i] for i in range(3))
    gap = np.maximum(span, TINY)
    sixths = np.select(
        [high == red, high == green], [(green - blue) / gap, 2 + (blue - red) / gap], 4 + (red - green) / gap
    )
    return np.where(span > TINY, sixths / 6 % 1.0, 0.0)


def _pure(hue: Floats) -> Floats:
    """Return the color of full saturation and value."""
    return np.asarray(np.clip(np.abs((hue[..., None] + np.array([0, 2 / 3, 1 / 3])) % 1.0 * 6 - 3) - 1, 0.0, 1.0))


@cache
def _cusps() -> tuple[Floats, Floats, Floats]:
    """Return hue, lightness and chroma in Oklch of the sRGB cusps (most saturated colors), by ascending hue.

    They lie on the edges of the RGB cube that touch neither black nor white.
    """
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], dtype=float)
    steps = np.linspace(0.0, 1.0, 2048, endpoint=False)[:, None] ** 2
    edges = [start + (end - start) * steps for start, end in itertools.pairwise(corners)]
    edges += [end + (start - end) * steps for start, end in itertools.pairwise(corners)]
    points = polar(oklab_of(np.concatenate(edges)))
    points = points[points[:, 2].argsort()]
    return points[:, 2], points[:, 0], points[:, 1]


def cusp(hue: Floats) -> tuple[Floats, Floats]:
    """Return lightness and chroma in Oklch of a hue's cusp."""
    hues, light, chroma = _cusps()
    return np.interp(hue, hues, light, period=1.0), np.interp(hue, hues, chroma, period=1.0)


STEPS, FAST_STEPS = 12, 7
"""Bisection steps: precise to a ten-thousandth of the maximum chroma, or fast to a hundredth."""


def clip_to_gamut(lch: Floats, adapt: float = 0.0, steps: int = STEPS) -> Floats:
    """Return Oklch with colors outside the sRGB gamut moved towards gray to its boundary.

    The gray has the same lightness; the greater `adapt`, the closer it is to middle gray for saturated colors,
    which preserves more chroma.
    """
    light = np.clip(lch[..., 0], 0.0, 1.0)
    whole = np.stack([light, np.maximum(lch[..., 1], 0.0), lch[..., 2]], axis=-1)
    outside = ~_in_gamut(whole)
    if outside.any():
        light, chroma, hue = (whole[outside][..., i] for i in range(3))
        off = light - 0.5
        reach = 0.5 + np.abs(off) + adapt * chroma
        gray = 0.5 * (1 + np.sign(off) * (reach - np.sqrt(np.maximum(reach * reach - 2 * np.abs(off), 0.0))))
        low, high = np.zeros_like(light), np.ones_like(light)
        for _ in range(steps):
            middle = (low + high) / 2
            is_inside = _in_gamut(np.stack([gray + (light - gray) * middle, chroma * middle, hue], axis=-1))
            low, high = np.where(is_inside, middle, low), np.where(is_inside, high, middle)
        whole[outside] = np.stack([gray + (light - gray) * low, chroma * low, hue], axis=-1)
    return whole


HUES, HEIGHTS = 1440, 128


@cache
def _bulge_table() -> Floats:
    """Return the ratio of sRGB's maximum chroma to the straight line from a hue's cusp to white.

    Shape (hues + 1, heights + 1): the first hue is repeated at the end, and heights range from the cusp to white.
    """
    hue, height = np.meshgrid(np.linspace(0, 1, HUES + 1), np.linspace(0, 1, HEIGHTS + 1)[:-1], indexing="ij")
    top, widest = cusp(hue)
    light, line = top + (1 - top) * height, widest * (1 - height)
    low, high = np.zeros_like(line), 1.2 * line
    for _ in range(20):
        middle = (low + high) / 2
        is_inside = _in_gamut(np.stack([light, middle, hue], axis=-1))
        low, high = np.where(is_inside, middle, low), np.where(is_inside, high, middle)
    shares = low / line
    shares[:, 0] = 1.0
    return np.concatenate([shares, shares[:, -1:]], axis=1)


def max_chroma_of(light: Floats, hue: Floats) -> Floats:
    """Return the maximum chroma of sRGB at a lightness and hue of Oklch, from a table.

    Below the cusp it is proportional to the lightness, which is exact except for blue, where sRGB is concave.
    """
    top, widest = cusp(hue)
    height = np.clip((light - top) / (1 - top), 0.0, 1.0)
    bulge = ndimage.map_coordinates(_bulge_table(), [hue % 1.0 * HUES, height * HEIGHTS], order=1, mode="nearest")
    return np.where(light <= top, light * widest / top, widest * (1 - height) * bulge)


def _in_gamut(lch: Floats) -> NDArray[np.bool_]:
    linear = linear_of_oklab(cartesian(lch))
    return np.asarray(((linear >= -1e-4) & (linear <= 1 + 1e-4)).all(axis=-1), dtype=np.bool_)  # noqa: PLR2004 - rounding


K1, K2 = 0.206, 0.03
K3 = (1 + K1) / (1 + K2)
"""Parameters of Ottosson's estimate of perceived lightness."""


def toe(light: Floats) -> Floats:
    """Return Oklab's lightness as perceived lightness relative to white."""
    part = K3 * light - K1
    return (part + np.sqrt(part * part + 4 * K2 * K3 * light)) / 2


def untoe(light: Floats) -> Floats:
    """Invert `toe`."""
    return (light * light + K1 * light) / (K3 * (light + K2))


def okhsv_of(lch: Floats) -> Floats:
    """Return Oklch as Okhsv: hue, saturation, value."""
    light, chroma, hue = (lch[..., i] for i in range(3))
    top, widest = cusp(hue)
    s_max, t_max = widest / top, widest / (1 - top)
    k = 1 - 0.5 / s_max
    t = t_max / np.maximum(chroma + light * t_max, TINY)
    light_v, chroma_v = t * light, t * chroma
    light_vt = untoe(light_v)
    chroma_vt = chroma_v * light_vt / np.maximum(light_v, TINY)
    scale = _scale(light_vt, chroma_vt, hue)
    perceived_light = toe(light / scale)
    value = perceived_light / np.maximum(light_v, TINY)
    saturation = (0.5 + t_max) * chroma_v / (t_max * 0.5 + t_max * k * chroma_v)
    dark = light <= TINY
    return np.stack([hue, np.where(dark, 0.0, saturation), np.where(dark, 0.0, value)], axis=-1)


def oklch_of_okhsv(hsv: Floats) -> Floats:
    """Invert `okhsv_of`."""
    hue, saturation, value = (hsv[..., i] for i in range(3))
    top, widest = cusp(hue)
    s_max, t_max = widest / top, widest / (1 - top)
    k = 1 - 0.5 / s_max
    part = 0.5 + t_max - t_max * k * saturation
    light_v = 1 - saturation * 0.5 / part
    chroma_v = saturation * t_max * 0.5 / part
    light_vt = untoe(light_v)
    chroma_vt = chroma_v * light_vt / np.maximum(light_v, TINY)
    scale = _scale(light_vt, chroma_vt, hue)
    light = untoe(value * light_v)
    chroma = value * chroma_v * light / np.maximum(value * light_v, TINY)
    return np.stack([light * scale, chroma * scale, hue], axis=-1)


def _scale(light: Floats, chroma: Floats, hue: Floats) -> Floats:
    """Return the factor that scales the top of Okhsv's cylinder to the top of sRGB."""
    linear = linear_of_oklab(cartesian(np.stack([light, chroma, hue], axis=-1)))
    return np.asarray(np.cbrt(1 / np.maximum(linear.max(axis=-1), TINY)))


def _chromas(light: Floats, hue: Floats) -> tuple[Floats, Floats, Floats]:
    """Return Okhsl's three chromas of a lightness and hue: near gray, in the middle, and the maximum."""
    top, widest = cusp(hue)
    max_chroma = max_chroma_of(light, hue)
    angle = hue * (2 * np.pi)
    a, b = np.cos(angle), np.sin(angle)
    k = max_chroma / np.maximum(np.minimum(light * widest / top, (1 - light) * widest / (1 - top)), TINY)
    s_mid = 0.11516993 + 1 / (
        7.44778970
        + 4.15901240 * b
        + a * (-2.19557347 + 1.75198401 * b + a * (-2.13704948 - 10.02301043 * b + a * (-4.24894561 + 5.38770819 * b + 4.69891013 * a)))
    )  # fmt: skip
    t_mid = 0.11239642 + 1 / (
        1.61320320
        - 0.68124379 * b
        + a * (0.40370612 + 0.90148123 * b + a * (-0.27087943 + 0.61223990 * b + a * (0.00299215 - 0.45399568 * b - 0.14661872 * a)))
    )  # fmt: skip
    left, right = light * s_mid, (1 - light) * t_mid
    middle = (
        0.9 * k * (1 / np.maximum(1 / np.maximum(left, TINY) ** 4 + 1 / np.maximum(right, TINY) ** 4, TINY)) ** 0.25
    )
    left, right = light * 0.4, (1 - light) * 0.8
    gray = np.sqrt(1 / (1 / np.maximum(left, TINY) ** 2 + 1 / np.maximum(right, TINY) ** 2))
    return gray, middle, max_chroma


MID, MID_INVERSE = 0.8, 1.25
OVERFULL = 1.2
"""Maximum Okhsl saturation that counts as within sRGB, because the table of maximum chromas is not exact."""


def okhsl_of(lch: Floats) -> Floats:
    """Return Oklch as Okhsl: hue, saturation, lightness."""
    light, chroma, hue = (lch[..., i] for i in range(3))
    gray, middle, max_chroma = _chromas(light, hue)
    k1 = MID * gray
    k2 = 1 - k1 / np.maximum(middle, TINY)
    inner = MID * chroma / np.maximum(k1 + k2 * chroma, TINY)
    k1 = (1 - MID) * (middle * MID_INVERSE) ** 2 / np.maximum(gray, TINY)
    k2 = 1 - k1 / np.maximum(max_chroma - middle, TINY)
    outer = MID + (1 - MID) * (chroma - middle) / np.maximum(k1 + k2 * (chroma - middle), TINY)
    saturation = np.where(chroma < middle, inner, outer)
    end = (light <= 1e-6) | (light >= 1 - 1e-6)  # noqa: PLR2004 - black and white
    return np.stack([hue, np.where(end, 0.0, np.clip(saturation, 0.0, OVERFULL)), toe(light)], axis=-1)


def oklch_of_okhsl(hsl: Floats) -> Floats:
    """Invert `okhsl_of`."""
    hue, saturation, perceived_light = (hsl[..., i] for i in range(3))
    light = untoe(np.clip(perceived_light, 0.0, 1.0))
    gray, middle, max_chroma = _chromas(light, hue)
    t = MID_INVERSE * saturation
    k1 = MID * gray
    inner = t * k1 / np.maximum(1 - (1 - k1 / np.maximum(middle, TINY)) * t, TINY)
    t = (saturation - MID) / (1 - MID)
    k1 = (1 - MID) * (middle * MID_INVERSE) ** 2 / np.maximum(gray, TINY)
    outer = middle + t * k1 / np.maximum(1 - (1 - k1 / np.maximum(max_chroma - middle, TINY)) * t, TINY)
    chroma = np.where(saturation < MID, inner, outer)
    end = (light <= 1e-6) | (light >= 1 - 1e-6)  # noqa: PLR2004 - black and white
    return np.stack([light, np.where(end, 0.0, chroma), hue], axis=-1)


def bytes_as_srgb(pixels: NDArray[np.uint8]) -> Floats:
    """Return bytes as floats from 0 to 1."""
    return pixels.astype(np.float64) / 255


def srgb_as_bytes(srgb: Floats) -> NDArray[np.uint8]:
    """Return floats as bytes, clipped to 0 to 1."""
    return np.round(np.clip(srgb, 0.0, 1.0) * 255).astype(np.uint8)


def achromatic_lightness(srgb: Floats) -> Floats:
    """Return the lightness of the gray that looks as light as a color (High and others, 2023), 0 to slightly above 1.

    Saturated colors look lighter than their CIELAB lightness, especially reds, blues and purples.
    """
    light, chroma, hue = np.moveaxis(polar(cielab_of(linear_of(srgb))), -1, 0)
    angle = hue * (2 * np.pi)
    blue = 0.1644 * np.abs(np.sin((angle - np.pi / 2) / 2)) + 0.0603
    red = np.where(np.cos(angle) >= 0, 0.1307 * np.abs(np.cos(angle)) + 0.0060, 0.0)
    return np.asarray(light + (blue + red) * chroma)
