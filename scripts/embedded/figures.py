"""Descriptions of pictures, and drawing of their objects, plain shapes and figures, with Pillow.

All random choices are already made in the description (`grammar.py`). Coordinates run from 0 to 1, x to the right and y
down, independent of the size in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

COLOURS: dict[str, Colour] = {
    "red": (222, 34, 38),
    "orange": (252, 138, 18),
    "yellow": (252, 222, 40),
    "green": (34, 160, 60),
    "blue": (34, 80, 218),
    "purple": (130, 42, 176),
    "pink": (255, 140, 188),
    "brown": (122, 72, 34),
    "black": (16, 16, 18),
    "white": (250, 250, 250),
    "gray": (136, 138, 142),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "hexagon", "ring", "cross", "moon", "cloud")
FIGURES = ("house", "tree", "flower", "mushroom", "cat", "fish", "boat", "car", "balloon")
SETTINGS = ("meadow", "night", "mountains", "beach", "sunset", "snow", "sea", "underwater", "road")


@dataclass(frozen=True)
class Thing:
    """One object: kind, color, center and half height, all in unit coordinates."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float
    tint: Colour = (0, 0, 0)  # the exact color to draw with: the named one, slightly varied


@dataclass(frozen=True)
class Picture:
    """A whole picture: its background and its objects, in drawing order."""

    background: str  # "plain", "gradient" or one of SETTINGS
    colour: str = ""  # of a plain or gradient background
    tint: Colour = (0, 0, 0)
    things: tuple[Thing, ...] = ()
    relation: str = ""  # between the first and the second object: left, right, above, below, inside
    count: int = 1  # of equal objects
    shift: float = 0.0  # -1..1: varies a setting's horizon, the sun's position, the hills
    captions: tuple[str, ...] = field(default=(), compare=False)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor < 1) or lighten (factor > 1, towards white) a color."""
    if factor <= 1:
        return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))
    return mix(colour, (255, 255, 255), factor - 1)


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Blend two colors linearly: 0 gives the first, 1 the second."""
    red, green, blue = (round(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return (red, green, blue)


def regular(corners: int, turn: float = 0.0) -> Points:
    """Return a regular polygon's corners on the unit circle, the first at the top for turn 0."""
    angles = (2 * math.pi * index / corners + turn for index in range(corners))
    return [(math.sin(angle), -math.cos(angle)) for angle in angles]


@lru_cache
def outline(kind: str) -> tuple[tuple[str, tuple[float, ...] | tuple[tuple[float, float], ...]], ...]:
    """Describe a plain shape on the square -1..1 as primitives; a name ending in ``-`` subtracts."""
    if kind == "star":
        spikes = [
            (x * (1 if i % 2 == 0 else 0.42), y * (1 if i % 2 == 0 else 0.42)) for i, (x, y) in enumerate(regular(10))
        ]
        return (("polygon", tuple((x * 1.05, y * 1.05 + 0.08) for x, y in spikes)),)
    if kind == "heart":
        turns = [2 * math.pi * step / 48 for step in range(48)]
        curve = [
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
            for t in turns
        ]
        return (("polygon", tuple((x, y - 0.08) for x, y in curve)),)
    fixed: dict[str, tuple[tuple[str, tuple], ...]] = {
        "circle": (("ellipse", (-1, -1, 1, 1)),),
        "square": (("rectangle", (-0.9, -0.9, 0.9, 0.9)),),
        "triangle": (("polygon", ((0, -0.95), (1.05, 0.85), (-1.05, 0.85))),),
        "diamond": (("polygon", ((0, -1), (0.72, 0), (0, 1), (-0.72, 0))),),
        "hexagon": (("polygon", tuple(regular(6, math.pi / 6))),),
        "ring": (("ellipse", (-1, -1, 1, 1)), ("ellipse-", (-0.55, -0.55, 0.55, 0.55))),
        "cross": (("rectangle", (-0.32, -1, 0.32, 1)), ("rectangle", (-1, -0.32, 1, 0.32))),
        "moon": (("ellipse", (-1, -1, 1, 1)), ("ellipse-", (-0.35, -1.05, 1.35, 0.65))),
        "cloud": (
            ("ellipse", (-1.15, -0.15, -0.25, 0.65)),
            ("ellipse", (-0.75, -0.7, 0.35, 0.5)),
            ("ellipse", (-0.05, -0.45, 0.85, 0.5)),
            ("ellipse", (0.4, -0.1, 1.15, 0.65)),
            ("rectangle", (-0.7, 0.1, 0.75, 0.65)),
        ),
    }
    return fixed[kind]


def shape_mask(kind: str, x: float, y: float, radius: float, size: int) -> Image.Image:
    """Draw one plain shape as an ``L`` mask of size x size pixels, white where the shape is."""
    mask = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(mask)
    for primitive, numbers in outline(kind):
        fill = 0 if primitive.endswith("-") else 255
        if primitive == "polygon":
            pen.polygon([((x + radius * px) * size, (y + radius * py) * size) for px, py in numbers], fill=fill)
        else:
            left, top, right, bottom = numbers
            box = [
                (x + radius * left) * size,
                (y + radius * top) * size,
                (x + radius * right) * size,
                (y + radius * bottom) * size,
            ]
            getattr(pen, primitive.rstrip("-"))(box, fill=fill)
    return mask


class Brush:
    """Draws a figure's parts in its own coordinates, -1..1 around the object's center."""

    def __init__(self, canvas: Image.Image, x: float, y: float, radius: float) -> None:
        self.pen = ImageDraw.Draw(canvas)
        self.size = canvas.width
        self.x, self.y, self.radius = x, y, radius

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Convert own coordinates to pixels."""
        return (self.x + self.radius * x) * self.size, (self.y + self.radius * y) * self.size

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """Paint a rectangle."""
        self.pen.rectangle([*self.at(left, top), *self.at(right, bottom)], fill=fill)

    def oval(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """Paint an ellipse inside a box."""
        self.pen.ellipse([*self.at(left, top), *self.at(right, bottom)], fill=fill)

    def polygon(self, points: Points, fill: Colour) -> None:
        """Paint a polygon."""
        self.pen.polygon([self.at(x, y) for x, y in points], fill=fill)

    def line(self, points: Points, width: float, fill: Colour) -> None:
        """Paint a line of a width given in own units."""
        pixels = max(1, round(width * self.radius * self.size))
        self.pen.line([self.at(x, y) for x, y in points], fill=fill, width=pixels, joint="curve")


WOOD, LEAF, DARK, LIGHT, GLASS = (112, 70, 36), (44, 130, 52), (24, 24, 28), (250, 248, 240), (176, 220, 246)
LAMP = (255, 226, 96)


def contrast(colour: Colour) -> Colour:
    """Return a dark line color for a light figure and a light one for a dark figure."""
    return DARK if sum(colour) > 150 else LIGHT


def draw_house(brush: Brush, colour: Colour, *, lit: bool) -> None:
    """Paint walls of the given color, a roof, a door and two windows, lit at night."""
    roof = (96, 46, 34) if sum(colour) > 320 else (196, 92, 60)
    pane = LAMP if lit else GLASS
    brush.box(0.45, -0.95, 0.7, -0.3, shade(roof, 0.8))
    brush.box(-0.8, -0.15, 0.8, 1, colour)
    brush.polygon([(-1.05, -0.1), (0, -1), (1.05, -0.1)], roof)
    brush.box(-0.2, 0.3, 0.2, 1, WOOD if sum(abs(a - b) for a, b in zip(colour, WOOD, strict=True)) > 90 else LIGHT)
    for left in (-0.66, 0.34):
        brush.box(left - 0.03, 0.07, left + 0.35, 0.47, LIGHT)
        brush.box(left, 0.1, left + 0.32, 0.44, pane)


def draw_tree(brush: Brush, colour: Colour) -> None:
    """Paint a trunk and a round crown of the given color."""
    brush.box(
        -0.15,
        0.2,
        0.15,
        1,
        WOOD if sum(abs(a - b) for a, b in zip(colour, WOOD, strict=True)) > 60 else shade(WOOD, 0.6),
    )
    for left, top, right, bottom in ((-0.85, -0.45, 0.2, 0.45), (-0.2, -0.45, 0.85, 0.45), (-0.6, -1, 0.6, 0.1)):
        brush.oval(left, top, right, bottom, colour)


def draw_flower(brush: Brush, colour: Colour) -> None:
    """Paint a stem with leaves and six petals of the given color around a yellow center."""
    brush.box(-0.07, -0.2, 0.07, 1, LEAF)
    brush.polygon([(0, 0.85), (0.55, 0.35), (0.5, 0.7)], LEAF)
    brush.polygon([(0, 0.85), (-0.55, 0.35), (-0.5, 0.7)], LEAF)
    for x, y in regular(6):
        brush.oval(x * 0.42 - 0.27, y * 0.42 - 0.62, x * 0.42 + 0.27, y * 0.42 - 0.08, colour)
    heart = LAMP if abs(colour[0] - 252) + abs(colour[1] - 222) > 40 else WOOD
    brush.oval(-0.23, -0.58, 0.23, -0.12, heart)


def draw_mushroom(brush: Brush, colour: Colour) -> None:
    """Paint a pale stem and a semicircular cap of the given color with light dots."""
    brush.oval(-0.35, 0.55, 0.35, 1.05, (238, 222, 190))
    brush.box(-0.27, 0, 0.27, 0.85, (238, 222, 190))
    brush.pen.pieslice([*brush.at(-1, -0.95), *brush.at(1, 1.15)], 180, 360, fill=colour)
    dot = LIGHT if sum(colour) < 680 else (206, 60, 50)
    for x, y, r in ((0, -0.6, 0.19), (-0.55, -0.25, 0.16), (0.55, -0.25, 0.16), (0, -0.12, 0.12)):
        brush.oval(x - r, y - r, x + r, y + r, dot)


def draw_cat(brush: Brush, colour: Colour) -> None:
    """Paint a sitting cat from the front: body, tail, a large head with ears, eyes, nose and whiskers."""
    ink = contrast(colour)
    brush.line([(0.4, 0.85), (0.85, 0.8), (0.98, 0.5), (0.86, 0.2)], 0.2, shade(colour, 0.8))
    brush.oval(-0.58, 0, 0.58, 1.3, shade(colour, 0.9))
    brush.oval(-0.3, 0.45, 0.3, 1.1, shade(colour, 1.45) if sum(colour) < 700 else (222, 222, 226))
    for side in (-1, 1):
        brush.oval(side * 0.28 - 0.19, 0.8, side * 0.28 + 0.19, 1.05, colour)
        brush.polygon([(side * 0.78, -1.05), (side * 0.82, -0.25), (side * 0.08, -0.6)], colour)
        brush.polygon([(side * 0.67, -0.83), (side * 0.66, -0.45), (side * 0.34, -0.6)], (240, 150, 160))
    brush.oval(-0.86, -0.72, 0.86, 0.42, colour)
    for side in (-1, 1):
        brush.oval(side * 0.38 - 0.2, -0.42, side * 0.38 + 0.2, 0, (190, 236, 90))
        brush.oval(side * 0.38 - 0.08, -0.4, side * 0.38 + 0.08, -0.02, DARK)
        brush.line([(side * 0.45, 0.16), (side * 1.08, 0.05)], 0.06, ink)
        brush.line([(side * 0.45, 0.22), (side * 1.08, 0.3)], 0.06, ink)
    brush.polygon([(-0.14, 0), (0.14, 0), (0, 0.15)], (240, 120, 140))


def draw_fish(brush: Brush, colour: Colour) -> None:
    """Paint a fish facing left: body, tail, fin, eye and gill."""
    brush.polygon([(0.5, 0), (1.15, -0.55), (1.15, 0.55)], shade(colour, 0.8) if sum(colour) > 150 else (70, 70, 76))
    brush.polygon(
        [(-0.2, -0.45), (0.35, -0.85), (0.4, -0.3)], shade(colour, 0.8) if sum(colour) > 150 else (70, 70, 76)
    )
    brush.oval(-1.15, -0.6, 0.75, 0.6, colour)
    brush.oval(-0.88, -0.3, -0.58, 0, LIGHT)
    brush.oval(-0.8, -0.22, -0.66, -0.08, DARK)
    brush.pen.arc(
        [*brush.at(-0.9, -0.4), *brush.at(-0.3, 0.4)],
        -60,
        60,
        fill=contrast(colour),
        width=max(1, round(0.06 * brush.radius * brush.size)),
    )


def draw_boat(brush: Brush, colour: Colour) -> None:
    """Paint a sailing boat: a hull of the given color, a mast and two sails."""
    sail = LIGHT if sum(colour) < 690 else (236, 96, 80)
    brush.box(-0.06, -1, 0.04, 0.5, WOOD)
    brush.polygon([(0.1, -0.95), (0.95, 0.3), (0.1, 0.3)], sail)
    brush.polygon([(-0.12, -0.7), (-0.12, 0.3), (-0.8, 0.3)], shade(sail, 0.88))
    brush.polygon([(-1.1, 0.42), (1.1, 0.42), (0.7, 1), (-0.7, 1)], colour)


def draw_car(brush: Brush, colour: Colour) -> None:
    """Paint a car from the side: body, cabin with windows, two wheels."""
    brush.polygon([(-0.65, -0.05), (-0.4, -0.6), (0.35, -0.6), (0.7, -0.05)], colour)
    brush.polygon([(-0.48, -0.08), (-0.3, -0.48), (-0.06, -0.48), (-0.06, -0.08)], GLASS)
    brush.polygon([(0.04, -0.08), (0.04, -0.48), (0.28, -0.48), (0.5, -0.08)], GLASS)
    brush.pen.rounded_rectangle(
        [*brush.at(-1.15, -0.08), *brush.at(1.15, 0.45)], radius=0.15 * brush.radius * brush.size, fill=colour
    )
    for x in (-0.6, 0.6):
        brush.oval(x - 0.3, 0.15, x + 0.3, 0.75, DARK)
        brush.oval(x - 0.13, 0.32, x + 0.13, 0.58, (190, 190, 196))


def draw_balloon(brush: Brush, colour: Colour) -> None:
    """Paint a balloon with a shine, a knot and a string."""
    brush.line([(0, 0.4), (0.06, 0.65), (-0.06, 0.85), (0.02, 1.1)], 0.05, (90, 90, 94))
    brush.polygon([(0, 0.3), (0.13, 0.5), (-0.13, 0.5)], shade(colour, 0.85))
    brush.oval(-0.65, -1, 0.65, 0.4, colour)
    brush.oval(-0.4, -0.78, -0.16, -0.42, shade(colour, 1.55) if sum(colour) < 700 else (214, 220, 228))


PAINTERS = {
    "tree": draw_tree,
    "flower": draw_flower,
    "mushroom": draw_mushroom,
    "cat": draw_cat,
    "fish": draw_fish,
    "boat": draw_boat,
    "car": draw_car,
    "balloon": draw_balloon,
}


def draw_thing(canvas: Image.Image, thing: Thing, *, lit: bool = False) -> None:
    """Paint one object onto a square canvas."""
    if thing.kind in SHAPES:
        canvas.paste(thing.tint, mask=shape_mask(thing.kind, thing.x, thing.y, thing.radius, canvas.width))
        return
    brush = Brush(canvas, thing.x, thing.y, thing.radius)
    if thing.kind == "house":
        draw_house(brush, thing.tint, lit=lit)
    else:
        PAINTERS[thing.kind](brush, thing.tint)
