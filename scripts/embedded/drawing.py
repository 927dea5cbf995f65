"""Drawing of a picture from its description. Does not depend on random numbers or words (`grammar.py` does)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from .figures import draw_thing
from .scenery import draw_background

if TYPE_CHECKING:
    from .figures import Picture


def draw(picture: Picture, size: int, supersampling: int = 2) -> Image.Image:
    """Draw a picture as an RGB image of size x size pixels, antialiased by supersampling."""
    canvas = Image.new("RGB", (size * supersampling,) * 2)
    draw_background(canvas, picture)
    for thing in picture.things:
        draw_thing(canvas, thing, lit=picture.background == "night")
    return canvas.resize((size, size), Image.Resampling.LANCZOS)
