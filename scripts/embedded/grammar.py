"""Decides what is on a picture and words its captions: the training data's small world.

One seed gives one picture with several captions. The mixture is weighted towards what the
measurement asks for (`measure.py`): one large object on a plain colour, two objects, scenes.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import replace

from .figures import COLOURS, FIGURES, SETTINGS, SHAPES, Colour, Picture, Thing
from .scenery import horizon

KINDS = (*SHAPES, *FIGURES)
NAMES = tuple(COLOURS)
# How often each sort of picture is drawn.
MIXTURE = {"single": 0.32, "pair": 0.4, "scene": 0.2, "empty": 0.02, "counted": 0.03, "placed": 0.03}
# How much more often than the other shapes and settings these are drawn: round and square outlines are the hardest to
# paint evenly, and three settings are what people ask for.
FAVOURED = {"circle": 2.0, "square": 2.0, "meadow": 2.0, "night": 2.0, "sea": 2.0}
PAIRED_SHAPES = 0.9  # how often an object of two is a shape: larger than in `single`, the pairs are to learn order
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS = {"fish": "fish", "cross": "crosses"}
PHRASES: dict[str, tuple[str, ...]] = {
    "meadow": (
        "in a meadow",
        "in a green meadow",
        "on the grass",
        "on a sunny day",
        "in a field",
        "in the meadow",
        "in a garden",
    ),
    "night": (
        "at night",
        "in the night",
        "at night with moon and stars",
        "under the stars",
        "under the night sky",
        "in the moonlight",
        "under a starry sky",
    ),
    "mountains": ("in the mountains", "in front of mountains", "with mountains", "in front of snowy mountains"),
    "beach": ("on the beach", "at the beach", "on a sandy beach", "by the sea"),
    "sunset": ("at sunset", "in the sunset", "in front of a sunset", "in the evening"),
    "snow": ("in the snow", "in winter", "in a snowy landscape", "on the snow"),
    "sea": ("on the sea", "at sea", "on the water", "on the ocean", "on the blue sea"),
    "underwater": ("under water", "underwater", "in the sea", "in the water", "in the ocean"),
    "road": ("on a road", "on the road", "on a street", "on the street"),
}
LANDSCAPES: dict[str, tuple[str, ...]] = {
    "meadow": ("a meadow", "a green meadow with a sun", "a field", "a garden", "a sunny meadow"),
    "night": ("a night sky", "the night sky with moon and stars", "night", "a starry night", "a starry sky"),
    "mountains": ("mountains", "snowy mountains", "a mountain landscape", "the mountains"),
    "beach": ("a beach", "a sandy beach", "the beach"),
    "sunset": ("a sunset", "sunset", "the evening sky", "a sunset landscape"),
    "snow": ("snow", "a snowy landscape", "winter", "a winter landscape"),
    "sea": ("the sea", "the ocean", "a blue sea", "the sea with waves"),
    "underwater": ("an underwater landscape", "under water", "underwater"),
    "road": ("a road", "a street", "an empty road"),
}
# Where each setting's objects stand, and which are found there most.
HABITS: dict[str, tuple[str, ...]] = {
    "meadow": ("cat", "cat", "cat", "cat", "tree", "flower", "house", "house", "mushroom", "car"),
    "night": ("house", "house", "house", "tree", "cat", "car", "boat"),
    "mountains": ("house", "tree", "cat", "car", "balloon"),
    "beach": ("cat", "house", "car", "boat", "balloon"),
    "sunset": ("boat", "boat", "house", "tree", "cat", "balloon", "car"),
    "snow": ("tree", "tree", "house", "house", "cat", "car"),
    "sea": ("boat", "boat", "boat", "fish", "balloon"),
    "underwater": ("fish",),
    "road": ("car", "car", "house", "cat"),
}
# The colour a kind has when none is named, and some of its natural ones.
NATURAL: dict[str, tuple[str, ...]] = {
    "house": ("red", "white", "yellow", "brown"),
    "tree": ("green", "green", "green", "orange"),
    "flower": ("red", "pink", "yellow", "purple"),
    "mushroom": ("red", "brown"),
    "cat": ("orange", "gray", "black", "white", "brown"),
    "fish": ("orange", "blue", "red", "yellow"),
    "boat": ("brown", "red", "blue", "white"),
    "car": ("red", "blue", "yellow"),
    "balloon": ("red", "blue", "yellow", "pink"),
}
PLACES: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "left": (0.27, 0.5, ("on the left", "on the left side")),
    "right": (0.73, 0.5, ("on the right", "on the right side")),
    "top": (0.5, 0.27, ("at the top", "on top")),
    "bottom": (0.5, 0.73, ("at the bottom", "on the bottom")),
    "top left": (0.28, 0.28, ("in the top left corner", "at the top left")),
    "top right": (0.72, 0.28, ("in the top right corner", "at the top right")),
    "bottom left": (0.28, 0.72, ("in the bottom left corner", "at the bottom left")),
    "bottom right": (0.72, 0.72, ("in the bottom right corner", "at the bottom right")),
}
FRAMES = ("{}",) * 8 + (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "an illustration of {}",
    "{}, simple",
    "{}, flat illustration",
    "{}, highly detailed",
    "{}, best quality",
    "a simple drawing of {}",
    "{}, masterpiece, best quality",
    "a painting of {}",
)


def article(words: str) -> str:
    """Put the indefinite article before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(kind: str) -> str:
    """Return a kind's plural."""
    return PLURALS.get(kind, f"{kind}s")


def spoken(colour: str, chance: random.Random) -> str:
    """Return a colour's word; gray has two spellings."""
    return "grey" if colour == "gray" and chance.random() < 0.4 else colour


def vary(colour: str, chance: random.Random) -> Colour:
    """Return a named colour's RGB, up to 5 levels off in each channel."""
    red, green, blue = (max(0, min(255, value + chance.randint(-5, 5))) for value in COLOURS[colour])
    return (red, green, blue)


def distinct(chance: random.Random, *used: str) -> str:
    """Pick a colour that is not in use and cannot be mistaken for one that is."""
    alike = {"white": {"gray"}, "gray": {"white"}, "brown": {"black"}, "black": {"brown"}}
    taken = set(used).union(*(alike.get(colour, set()) for colour in used))
    return chance.choice([colour for colour in NAMES if colour not in taken])


def favoured(chance: random.Random, names: tuple[str, ...]) -> str:
    """Pick a shape or a setting by its weight in FAVOURED."""
    return chance.choices(names, [FAVOURED.get(name, 1.0) for name in names])[0]


def object_kind(chance: random.Random, shapes: float = 0.66) -> str:
    """Pick an object: shapes two times in three unless told otherwise, since they are what is measured."""
    return favoured(chance, SHAPES) if chance.random() < shapes else chance.choice(FIGURES)


def make_thing(kind: str, colour: str, x: float, y: float, radius: float, chance: random.Random) -> Thing:
    """Make an object with a slightly varied colour."""
    return Thing(kind, colour, x, y, radius, vary(colour, chance))


def plain(chance: random.Random, *colours: str) -> Picture:
    """Make a plain (or, one time in eight, gradient) background unlike the objects' colours."""
    colour = (
        "white"
        if chance.random() < 0.12 and "white" not in colours and "gray" not in colours
        else distinct(chance, *colours)
    )
    return Picture("gradient" if chance.random() < 0.12 else "plain", colour, vary(colour, chance))


def on_background(subject: str, picture: Picture, chance: random.Random) -> str:
    """Add the background's words to the words for what is on it."""
    colour = spoken(picture.colour, chance)
    if picture.background == "gradient":
        return chance.choice(
            (
                f"{subject} on {article(colour)} gradient background",
                f"{subject} on {article(colour)} gradient",
                f"{subject}, {colour} gradient background",
            )
        )
    return chance.choice(
        (f"{subject} on {article(colour)} background",) * 4
        + (
            f"{subject}, {colour} background",
            f"{subject} on {colour}",
            f"{subject} with {article(colour)} background",
            f"{subject} on plain {colour} background",
            f"{subject} in front of {article(colour)} background",
        )
    )


def named(thing: Thing, chance: random.Random, size: str = "") -> str:
    """Word one object: an article mostly, perhaps its size, its colour, its kind."""
    words = " ".join(part for part in (size, spoken(thing.colour, chance), thing.kind) if part)
    return words if chance.random() < 0.15 else article(words)


def framed(words: str, chance: random.Random) -> str:
    """Set a caption into one of the phrases that people put round a prompt."""
    return chance.choice(FRAMES).format(words)


def single(chance: random.Random) -> tuple[Picture, list[str]]:
    """Invent one object near the middle, mostly large."""
    colour, kind = chance.choice(NAMES), object_kind(chance)
    picture = plain(chance, colour)
    size = chance.choices(("", "big", "small"), (0.8, 0.12, 0.08))[0]
    radius = {"": chance.uniform(0.28, 0.37), "big": chance.uniform(0.39, 0.43), "small": chance.uniform(0.15, 0.19)}[
        size
    ]
    reach = max(0.0, min(0.06, 0.46 - radius))
    thing = make_thing(
        kind, colour, 0.5 + chance.uniform(-reach, reach), 0.5 + chance.uniform(-reach, reach), radius, chance
    )
    word = {"": "", "big": chance.choice(("big", "large")), "small": chance.choice(("small", "little", "tiny"))}[size]
    captions = [on_background(named(thing, chance, word), picture, chance) for _ in range(4)]
    if chance.random() < 0.15:  # Without a background's words any background may come.
        captions[3] = named(thing, chance, word)
    return replace(picture, things=(thing,)), captions


def placed(chance: random.Random) -> tuple[Picture, list[str]]:
    """Invent one object at a named place."""
    colour, kind = chance.choice(NAMES), object_kind(chance)
    picture = plain(chance, colour)
    x, y, phrases = PLACES[chance.choice(list(PLACES))]
    thing = make_thing(
        kind,
        colour,
        x + chance.uniform(-0.03, 0.03),
        y + chance.uniform(-0.03, 0.03),
        chance.uniform(0.18, 0.22),
        chance,
    )
    captions = [on_background(f"{named(thing, chance)} {chance.choice(phrases)}", picture, chance) for _ in range(4)]
    return replace(picture, things=(thing,)), captions


def pair(chance: random.Random) -> tuple[Picture, list[str]]:
    """Invent two objects in a named relation."""
    relation = chance.choice(("left", "right", "above", "below") * 3 + ("inside",))
    first, second = chance.choice(NAMES), ""
    second = chance.choice(NAMES) if relation != "inside" and chance.random() < 0.1 else distinct(chance, first)
    picture = plain(chance, first, second)
    kinds = (object_kind(chance, PAIRED_SHAPES), object_kind(chance, PAIRED_SHAPES))
    if relation == "inside":
        kinds = (chance.choice(SHAPES), chance.choice(("circle", "square", "hexagon", "ring", "heart", "diamond")))
        if kinds[1] == "ring":
            spot, sizes = ((0.5, 0.5), (0.5, 0.5)), (0.16, 0.41)
        else:
            spot, sizes = ((0.5, 0.5), (0.5, 0.5)), (chance.uniform(0.17, 0.21), chance.uniform(0.4, 0.43))
    else:
        near, far = 0.265 + chance.uniform(-0.015, 0.015), 0.735 + chance.uniform(-0.015, 0.015)
        drift = chance.uniform(-0.03, 0.03), chance.uniform(-0.03, 0.03)
        start, end = (near, far) if relation in ("left", "above") else (far, near)
        along = ((start, 0.5 + drift[0]), (end, 0.5 + drift[1]))
        spot = along if relation in ("left", "right") else ((along[0][1], along[0][0]), (along[1][1], along[1][0]))
        sizes = (chance.uniform(0.19, 0.22), chance.uniform(0.19, 0.22))
    things = tuple(
        make_thing(kind, colour, *place, size, chance)
        for kind, colour, place, size in zip(kinds, (first, second), spot, sizes, strict=True)
    )
    captions = [on_background(related(things[0], things[1], relation, chance), picture, chance) for _ in range(4)]
    ordered = things[::-1] if relation == "inside" else things  # The outer one is painted first.
    return replace(picture, things=ordered, relation=relation), captions


def related(first: Thing, second: Thing, relation: str, chance: random.Random) -> str:
    """Word two objects and their relation, seen from either of them."""
    one, other = named(first, chance), named(second, chance)
    if relation == "inside":
        return chance.choice((f"{one} inside {other}", f"{one} in {other}", f"{one} within {other}"))
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[relation]
    if chance.random() < 0.3:
        one, other, relation = other, one, opposite
    if relation in ("left", "right"):
        other_side = "right" if relation == "left" else "left"
        forms = (
            f"{one} to the {relation} of {other}",
            f"{one} {relation} of {other}",
            f"{one} on the {relation} of {other}",
            f"{one} on the {relation} and {other} on the {other_side}",
        )
        if relation == "left":
            forms = (*forms, f"{one} and {other}", f"{one} next to {other}")
    else:
        down = "at the bottom" if relation == "above" else "at the top"
        up = "at the top" if relation == "above" else "at the bottom"
        forms = (
            f"{one} {relation} {other}",
            f"{one} {relation} {other}",
            f"{one} {'over' if relation == 'above' else 'under'} {other}",
            f"{one} {up} and {other} {down}",
        )
    return chance.choice(forms)


def counted(chance: random.Random) -> tuple[Picture, list[str]]:
    """Invent two to four equal objects."""
    number, colour, kind = chance.choice((2, 2, 3, 3, 4)), chance.choice(NAMES), object_kind(chance)
    picture = plain(chance, colour)
    rows = {
        2: ((0.27, 0.5), (0.73, 0.5)),
        3: ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)),
        4: ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
    }
    radius = {2: 0.18, 3: 0.125, 4: 0.17}[number]
    things = tuple(make_thing(kind, colour, x, y, radius, chance) for x, y in rows[number])
    captions = [
        on_background(f"{NUMBERS[number]} {spoken(colour, chance)} {plural(kind)}", picture, chance) for _ in range(4)
    ]
    return replace(picture, things=things, count=number), captions


def scene(chance: random.Random) -> tuple[Picture, list[str]]:
    """Invent one figure in a setting."""
    setting = favoured(chance, SETTINGS)
    kind = chance.choice(HABITS[setting]) if chance.random() < 0.85 else chance.choice(FIGURES)
    colour = chance.choice(NATURAL[kind]) if chance.random() < 0.6 else chance.choice(NAMES)
    shift = chance.uniform(-1, 1)
    picture = Picture(setting, shift=shift)
    radius = chance.uniform(0.29, 0.34) if kind == "cat" else chance.uniform(0.24, 0.31)
    ground = horizon(picture)
    if kind == "balloon":
        y = 0.36
    elif kind == "fish":
        y = 0.5 if setting == "underwater" else ground + 0.18
    elif kind == "boat":
        y = ground + 0.12 - radius if setting != "beach" else ground - radius
    elif setting == "road" and kind == "car":
        y = ground + 0.25 - 0.7 * radius
    elif setting in ("sea", "underwater"):
        y = ground + 0.1 - radius
    else:
        y = min(0.97, ground + 0.18) - radius
    thing = make_thing(kind, colour, 0.5 + chance.uniform(-0.1, 0.1), y, radius, chance)
    captions = []
    for _ in range(4):
        bare = colour in NATURAL[kind] and chance.random() < 0.4
        subject = article(kind) if bare else named(thing, chance)
        captions.append(f"{subject} {chance.choice(PHRASES[setting])}")
    return replace(picture, things=(thing,)), captions


def empty(chance: random.Random) -> tuple[Picture, list[str]]:
    """Invent a setting or a plain background without objects."""
    if chance.random() < 0.3:
        picture = plain(chance)
        colour, sort = spoken(picture.colour, chance), "gradient " if picture.background == "gradient" else ""
        return picture, [
            article(f"{colour} {sort}background"),
            f"{colour} {sort}background",
            f"an empty {colour} {sort}background",
            f"plain {colour} {sort}background",
        ]
    setting = chance.choice(SETTINGS)
    return Picture(setting, shift=chance.uniform(-1, 1)), [chance.choice(LANDSCAPES[setting]) for _ in range(4)]


SORTS = {"single": single, "pair": pair, "scene": scene, "empty": empty, "counted": counted, "placed": placed}


def held_out(colour: str, kind: str, background: str) -> bool:
    """Tell whether an object of a colour on a background's colour is kept from training, for measuring (one in 12)."""
    return zlib.crc32(f"{colour} {kind} on {background}".encode()) % 12 == 0


def imagine(seed: int | str, sort: str = "") -> Picture:
    """Invent one picture with four captions; the same seed always gives the same."""
    chance = random.Random(f"embedded {seed}")
    chosen = sort or chance.choices(list(MIXTURE), list(MIXTURE.values()))[0]
    picture, captions = SORTS[chosen](chance)
    while any(held_out(thing.colour, thing.kind, picture.colour) for thing in picture.things):
        picture, captions = SORTS[chosen](chance)
    return replace(picture, captions=tuple(framed(caption, chance) for caption in captions))


def words() -> set[str]:
    """Collect every word that captions can hold, found by inventing many pictures."""
    found: set[str] = set()
    for number in range(6000):
        for caption in imagine(f"words {number}").captions:
            found.update(caption.replace(",", " ").lower().split())
    return found
