"""Drawing of backgrounds: plain colors, gradients, and settings such as a night sky or the sea."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from .figures import COLOURS, Brush, Colour, mix, shape_mask

if TYPE_CHECKING:
    from .figures import Picture

SKY, GRASS, SAND, SNOW = (128, 196, 246), (92, 176, 68), (240, 212, 140), (244, 248, 252)
SUN, NIGHT_SKY, NIGHT_GROUND = (255, 218, 48), (18, 22, 66), (22, 46, 44)
STARS = ((0.08, 0.1), (0.22, 0.27), (0.37, 0.09), (0.53, 0.22), (0.64, 0.06), (0.93, 0.33), (0.07, 0.43), (0.9, 0.06))
GROUND = {
    "meadow": 0.62,
    "night": 0.72,
    "mountains": 0.74,
    "beach": 0.7,
    "sunset": 0.62,
    "snow": 0.62,
    "sea": 0.56,
    "underwater": 0.9,
    "road": 0.66,
}


def horizon(picture: Picture) -> float:
    """Return the height of a setting's horizon, 0 (top) to 1 (bottom)."""
    return GROUND.get(picture.background, 1.0) + 0.03 * picture.shift


def gradient(canvas: Image.Image, top: Colour, bottom: Colour, end: float = 1.0) -> None:
    """Fill the canvas from the top down to the fraction ``end`` with a vertical gradient."""
    height = max(1, round(canvas.height * end))
    column = Image.new("RGB", (1, 16))
    column.putdata([mix(top, bottom, row / 15) for row in range(16)])
    canvas.paste(column.resize((canvas.width, height), Image.Resampling.BILINEAR), (0, 0))


def draw_background(canvas: Image.Image, picture: Picture) -> None:
    """Fill a whole square canvas with the picture's background."""
    if picture.background == "plain":
        canvas.paste(picture.tint, (0, 0, *canvas.size))
    elif picture.background == "gradient":
        light = mix(picture.tint, (255, 255, 255), 0.75) if picture.colour != "white" else (150, 160, 176)
        gradient(canvas, picture.tint, light)
    else:
        PAINTERS[picture.background](canvas, Brush(canvas, 0.0, 0.0, 1.0), horizon(picture), picture.shift)


def _sun_x(shift: float) -> float:
    return 0.84 if shift >= 0 else 0.16


def _sun(brush: Brush, x: float, y: float, radius: float, colour: Colour = SUN) -> None:
    brush.oval(x - radius, y - radius, x + radius, y + radius, colour)


def _cloud(canvas: Image.Image, x: float, y: float, radius: float) -> None:
    canvas.paste((252, 253, 255), mask=shape_mask("cloud", x, y, radius, canvas.width))


def _meadow(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, SKY, (206, 234, 252), level)
    _sun(brush, _sun_x(shift), 0.16, 0.1)
    _cloud(canvas, 1 - _sun_x(shift) + 0.1 * shift, 0.2, 0.11)
    brush.box(0, level, 1, 1, GRASS)
    for index in range(7):
        x, y = 0.05 + 0.15 * index, level + 0.1 + 0.23 * ((index * 5) % 7) / 7
        brush.oval(
            x - 0.014, y - 0.014, x + 0.014, y + 0.014, ((255, 240, 120), (255, 255, 255), (250, 160, 190))[index % 3]
        )


def _night(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, NIGHT_SKY, (44, 50, 112), level)
    for x, y in STARS:
        star_x = (x + 0.5 + 0.1 * shift) % 1 if shift < 0 else x
        brush.oval(star_x - 0.012, y - 0.012, star_x + 0.012, y + 0.012, (255, 250, 214))
    canvas.paste((250, 240, 190), mask=shape_mask("moon", _sun_x(shift), 0.17, 0.1, canvas.width))
    brush.box(0, level, 1, 1, NIGHT_GROUND)


def _mountains(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, SKY, (214, 236, 252), level)
    peaks = (
        (0.2 + 0.06 * shift, 0.3, 0.36, (132, 142, 164)),
        (0.84, 0.36, 0.34, (120, 130, 152)),
        (0.52 + 0.08 * shift, 0.18, 0.42, (100, 110, 134)),
    )
    for x, top, half, colour in peaks:
        slope = (level - top) / half
        brush.polygon([(x - half, level), (x, top), (x + half, level)], colour)
        cap = 0.13
        brush.polygon(
            [
                (x, top),
                (x + cap / slope, top + cap),
                (x + 0.03, top + cap * 0.7),
                (x - 0.03, top + cap * 1.15),
                (x - cap / slope, top + cap),
            ],
            SNOW,
        )
    brush.box(0, level, 1, 1, (86, 150, 74))


def _beach(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, SKY, (212, 238, 252), 0.45)
    _sun(brush, _sun_x(shift), 0.15, 0.1)
    brush.box(0, 0.42, 1, level, (44, 132, 200))
    brush.box(0, level - 0.025, 1, level, (236, 246, 252))
    brush.box(0, level, 1, 1, SAND)


def _sunset(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, (112, 54, 130), (255, 158, 62), level)
    _sun(brush, 0.5 + 0.2 * shift, level - 0.02, 0.17, (255, 228, 110))
    brush.box(0, level, 1, 1, (70, 42, 84))


def _snow(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, (146, 172, 204), (204, 218, 234), level)
    brush.box(0, level, 1, 1, SNOW)
    for index in range(14):
        x, y = (0.04 + 0.27 * index + 0.05 * shift) % 1, (0.05 + 0.131 * index) % 0.6
        brush.oval(x - 0.015, y - 0.015, x + 0.015, y + 0.015, (252, 253, 255))


def _sea(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, SKY, (216, 238, 252), level)
    _sun(brush, _sun_x(shift), 0.16, 0.1)
    _cloud(canvas, 1 - _sun_x(shift) + 0.1 * shift, 0.2, 0.11)
    brush.box(0, level, 1, 1, (30, 104, 186))
    for index in range(6):
        x, y = (0.1 + 0.37 * index) % 1, level + 0.08 + 0.055 * index
        brush.line([(x - 0.09, y), (x - 0.03, y - 0.015), (x + 0.03, y), (x + 0.09, y - 0.015)], 0.012, (150, 202, 236))


def _underwater(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, (70, 176, 220), (12, 74, 140), level)
    brush.box(0, level, 1, 1, (214, 190, 128))
    for x in (0.1 + 0.03 * shift, 0.9 + 0.03 * shift):
        brush.line([(x, 1), (x - 0.03, 0.86), (x + 0.02, 0.74), (x - 0.01, 0.62)], 0.03, (30, 120, 70))
    for x, y in ((0.12, 0.2), (0.16, 0.1), (0.88, 0.3), (0.85, 0.16), (0.9, 0.07)):
        brush.oval(x - 0.022, y - 0.022, x + 0.022, y + 0.022, (190, 230, 246))


def _road(canvas: Image.Image, brush: Brush, level: float, shift: float) -> None:
    gradient(canvas, SKY, (214, 236, 252), level)
    _cloud(canvas, 0.25 + 0.1 * shift, 0.18, 0.12)
    _cloud(canvas, 0.76 + 0.1 * shift, 0.26, 0.09)
    brush.box(0, level, 1, 1, GRASS)
    brush.box(0, level + 0.08, 1, level + 0.28, (84, 86, 92))
    for index in range(5):
        brush.box(0.04 + 0.2 * index, level + 0.17, 0.14 + 0.2 * index, level + 0.19, LINE)


LINE = COLOURS["white"]
PAINTERS = {
    "meadow": _meadow,
    "night": _night,
    "mountains": _mountains,
    "beach": _beach,
    "sunset": _sunset,
    "snow": _snow,
    "sea": _sea,
    "underwater": _underwater,
    "road": _road,
}
