"""Random generation of pictures and their captions: the contents of the training data.

One seed gives one picture with several captions. The mixture is weighted towards the measured kinds (`measure.py`): one
large object on a plain color, two objects, scenes.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import replace

from .figures import COLOURS, FIGURES, SETTINGS, SHAPES, Colour, Picture, Thing
from .scenery import horizon

KINDS = (*SHAPES, *FIGURES)
NAMES = tuple(COLOURS)
# Frequency of each sort of picture.
MIXTURE = {"single": 0.32, "pair": 0.4, "scene": 0.2, "empty": 0.02, "counted": 0.03, "placed": 0.03}
# Relative frequencies of these shapes and settings: round and square outlines are the hardest to paint evenly, and
# three settings are the most requested.
FAVOURED = {"circle": 2.0, "square": 2.0, "meadow": 2.0, "night": 2.0, "sea": 2.0}
PAIRED_SHAPES = 0.9  # share of shapes in pairs: larger than in `single`, because pairs teach order
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
# Typical objects of each setting, and the most frequent ones.
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
# The default color of a kind, and some of its natural ones.
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
    """Add the indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(kind: str) -> str:
    """Return a kind's plural."""
    return PLURALS.get(kind, f"{kind}s")


def spoken(colour: str, rng: random.Random) -> str:
    """Return the word for a color; gray has two spellings."""
    return "grey" if colour == "gray" and rng.random() < 0.4 else colour


def vary(colour: str, rng: random.Random) -> Colour:
    """Return a named color's RGB, varied by up to 5 levels per channel."""
    red, green, blue = (max(0, min(255, value + rng.randint(-5, 5))) for value in COLOURS[colour])
    return (red, green, blue)


def distinct(rng: random.Random, *used: str) -> str:
    """Choose a color that is not in use and is distinguishable from those that are."""
    alike = {"white": {"gray"}, "gray": {"white"}, "brown": {"black"}, "black": {"brown"}}
    taken = set(used).union(*(alike.get(colour, set()) for colour in used))
    return rng.choice([colour for colour in NAMES if colour not in taken])


def choose_weighted(rng: random.Random, names: tuple[str, ...]) -> str:
    """Choose a shape or a setting by its weight in FAVOURED."""
    return rng.choices(names, [FAVOURED.get(name, 1.0) for name in names])[0]


def object_kind(rng: random.Random, shapes: float = 0.66) -> str:
    """Choose an object: shapes two times in three unless told otherwise, since they are measured."""
    return choose_weighted(rng, SHAPES) if rng.random() < shapes else rng.choice(FIGURES)


def make_thing(kind: str, colour: str, x: float, y: float, radius: float, rng: random.Random) -> Thing:
    """Create an object with a slightly varied color."""
    return Thing(kind, colour, x, y, radius, vary(colour, rng))


def plain(rng: random.Random, *colours: str) -> Picture:
    """Create a plain (or, one time in eight, gradient) background unlike the objects' colors."""
    colour = (
        "white" if rng.random() < 0.12 and "white" not in colours and "gray" not in colours else distinct(rng, *colours)
    )
    return Picture("gradient" if rng.random() < 0.12 else "plain", colour, vary(colour, rng))


def on_background(subject: str, picture: Picture, rng: random.Random) -> str:
    """Add the words for the background to those for the subject."""
    colour = spoken(picture.colour, rng)
    if picture.background == "gradient":
        return rng.choice(
            (
                f"{subject} on {article(colour)} gradient background",
                f"{subject} on {article(colour)} gradient",
                f"{subject}, {colour} gradient background",
            )
        )
    return rng.choice(
        (f"{subject} on {article(colour)} background",) * 4
        + (
            f"{subject}, {colour} background",
            f"{subject} on {colour}",
            f"{subject} with {article(colour)} background",
            f"{subject} on plain {colour} background",
            f"{subject} in front of {article(colour)} background",
        )
    )


def describe_object(thing: Thing, rng: random.Random, size: str = "") -> str:
    """Describe one object: usually an article, optionally its size, its color, its kind."""
    words = " ".join(part for part in (size, spoken(thing.colour, rng), thing.kind) if part)
    return words if rng.random() < 0.15 else article(words)


def add_phrase(words: str, rng: random.Random) -> str:
    """Insert a caption into one of the phrases that are common in prompts."""
    return rng.choice(FRAMES).format(words)


def single(rng: random.Random) -> tuple[Picture, list[str]]:
    """Generate one object near the center, mostly large."""
    colour, kind = rng.choice(NAMES), object_kind(rng)
    picture = plain(rng, colour)
    size = rng.choices(("", "big", "small"), (0.8, 0.12, 0.08))[0]
    radius = {"": rng.uniform(0.28, 0.37), "big": rng.uniform(0.39, 0.43), "small": rng.uniform(0.15, 0.19)}[size]
    reach = max(0.0, min(0.06, 0.46 - radius))
    thing = make_thing(kind, colour, 0.5 + rng.uniform(-reach, reach), 0.5 + rng.uniform(-reach, reach), radius, rng)
    word = {"": "", "big": rng.choice(("big", "large")), "small": rng.choice(("small", "little", "tiny"))}[size]
    captions = [on_background(describe_object(thing, rng, word), picture, rng) for _ in range(4)]
    if rng.random() < 0.15:  # Without words for the background, any background is possible.
        captions[3] = describe_object(thing, rng, word)
    return replace(picture, things=(thing,)), captions


def object_at_location(rng: random.Random) -> tuple[Picture, list[str]]:
    """Generate one object at a named location."""
    colour, kind = rng.choice(NAMES), object_kind(rng)
    picture = plain(rng, colour)
    x, y, phrases = PLACES[rng.choice(list(PLACES))]
    thing = make_thing(
        kind,
        colour,
        x + rng.uniform(-0.03, 0.03),
        y + rng.uniform(-0.03, 0.03),
        rng.uniform(0.18, 0.22),
        rng,
    )
    captions = [on_background(f"{describe_object(thing, rng)} {rng.choice(phrases)}", picture, rng) for _ in range(4)]
    return replace(picture, things=(thing,)), captions


def pair(rng: random.Random) -> tuple[Picture, list[str]]:
    """Generate two objects in a named relation."""
    relation = rng.choice(("left", "right", "above", "below") * 3 + ("inside",))
    first, second = rng.choice(NAMES), ""
    second = rng.choice(NAMES) if relation != "inside" and rng.random() < 0.1 else distinct(rng, first)
    picture = plain(rng, first, second)
    kinds = (object_kind(rng, PAIRED_SHAPES), object_kind(rng, PAIRED_SHAPES))
    if relation == "inside":
        kinds = (rng.choice(SHAPES), rng.choice(("circle", "square", "hexagon", "ring", "heart", "diamond")))
        if kinds[1] == "ring":
            spot, sizes = ((0.5, 0.5), (0.5, 0.5)), (0.16, 0.41)
        else:
            spot, sizes = ((0.5, 0.5), (0.5, 0.5)), (rng.uniform(0.17, 0.21), rng.uniform(0.4, 0.43))
    else:
        near, far = 0.265 + rng.uniform(-0.015, 0.015), 0.735 + rng.uniform(-0.015, 0.015)
        drift = rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)
        start, end = (near, far) if relation in ("left", "above") else (far, near)
        along = ((start, 0.5 + drift[0]), (end, 0.5 + drift[1]))
        spot = along if relation in ("left", "right") else ((along[0][1], along[0][0]), (along[1][1], along[1][0]))
        sizes = (rng.uniform(0.19, 0.22), rng.uniform(0.19, 0.22))
    things = tuple(
        make_thing(kind, colour, *position, size, rng)
        for kind, colour, position, size in zip(kinds, (first, second), spot, sizes, strict=True)
    )
    captions = [on_background(describe_relation(things[0], things[1], relation, rng), picture, rng) for _ in range(4)]
    ordered = things[::-1] if relation == "inside" else things  # The outer one is painted first.
    return replace(picture, things=ordered, relation=relation), captions


def describe_relation(first: Thing, second: Thing, relation: str, rng: random.Random) -> str:
    """Describe two objects and their relation, from the viewpoint of either."""
    first_phrase, second_phrase = describe_object(first, rng), describe_object(second, rng)
    if relation == "inside":
        return rng.choice(
            (
                f"{first_phrase} inside {second_phrase}",
                f"{first_phrase} in {second_phrase}",
                f"{first_phrase} within {second_phrase}",
            )
        )
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[relation]
    if rng.random() < 0.3:
        first_phrase, second_phrase, relation = second_phrase, first_phrase, opposite
    if relation in ("left", "right"):
        other_side = "right" if relation == "left" else "left"
        forms = (
            f"{first_phrase} to the {relation} of {second_phrase}",
            f"{first_phrase} {relation} of {second_phrase}",
            f"{first_phrase} on the {relation} of {second_phrase}",
            f"{first_phrase} on the {relation} and {second_phrase} on the {other_side}",
        )
        if relation == "left":
            forms = (*forms, f"{first_phrase} and {second_phrase}", f"{first_phrase} next to {second_phrase}")
    else:
        down = "at the bottom" if relation == "above" else "at the top"
        up = "at the top" if relation == "above" else "at the bottom"
        forms = (
            f"{first_phrase} {relation} {second_phrase}",
            f"{first_phrase} {relation} {second_phrase}",
            f"{first_phrase} {'over' if relation == 'above' else 'under'} {second_phrase}",
            f"{first_phrase} {up} and {second_phrase} {down}",
        )
    return rng.choice(forms)


def equal_objects(rng: random.Random) -> tuple[Picture, list[str]]:
    """Generate two to four equal objects."""
    number, colour, kind = rng.choice((2, 2, 3, 3, 4)), rng.choice(NAMES), object_kind(rng)
    picture = plain(rng, colour)
    rows = {
        2: ((0.27, 0.5), (0.73, 0.5)),
        3: ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)),
        4: ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
    }
    radius = {2: 0.18, 3: 0.125, 4: 0.17}[number]
    things = tuple(make_thing(kind, colour, x, y, radius, rng) for x, y in rows[number])
    captions = [
        on_background(f"{NUMBERS[number]} {spoken(colour, rng)} {plural(kind)}", picture, rng) for _ in range(4)
    ]
    return replace(picture, things=things, count=number), captions


def scene(rng: random.Random) -> tuple[Picture, list[str]]:
    """Generate one figure in a setting."""
    setting = choose_weighted(rng, SETTINGS)
    kind = rng.choice(HABITS[setting]) if rng.random() < 0.85 else rng.choice(FIGURES)
    colour = rng.choice(NATURAL[kind]) if rng.random() < 0.6 else rng.choice(NAMES)
    shift = rng.uniform(-1, 1)
    picture = Picture(setting, shift=shift)
    radius = rng.uniform(0.29, 0.34) if kind == "cat" else rng.uniform(0.24, 0.31)
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
    thing = make_thing(kind, colour, 0.5 + rng.uniform(-0.1, 0.1), y, radius, rng)
    captions = []
    for _ in range(4):
        bare = colour in NATURAL[kind] and rng.random() < 0.4
        subject = article(kind) if bare else describe_object(thing, rng)
        captions.append(f"{subject} {rng.choice(PHRASES[setting])}")
    return replace(picture, things=(thing,)), captions


def empty(rng: random.Random) -> tuple[Picture, list[str]]:
    """Generate a setting or a plain background without objects."""
    if rng.random() < 0.3:
        picture = plain(rng)
        colour, sort = spoken(picture.colour, rng), "gradient " if picture.background == "gradient" else ""
        return picture, [
            article(f"{colour} {sort}background"),
            f"{colour} {sort}background",
            f"an empty {colour} {sort}background",
            f"plain {colour} {sort}background",
        ]
    setting = rng.choice(SETTINGS)
    return Picture(setting, shift=rng.uniform(-1, 1)), [rng.choice(LANDSCAPES[setting]) for _ in range(4)]


SORTS = {
    "single": single,
    "pair": pair,
    "scene": scene,
    "empty": empty,
    "counted": equal_objects,
    "placed": object_at_location,
}


def is_held_out(colour: str, kind: str, background: str) -> bool:
    """Return whether an object color on a background color is excluded from training for measurement (one in 12)."""
    return zlib.crc32(f"{colour} {kind} on {background}".encode()) % 12 == 0


def imagine(seed: int | str, sort: str = "") -> Picture:
    """Generate one picture with four captions; deterministic for a seed."""
    rng = random.Random(f"embedded {seed}")
    kind_of_picture = sort or rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
    picture, captions = SORTS[kind_of_picture](rng)
    while any(is_held_out(thing.colour, thing.kind, picture.colour) for thing in picture.things):
        picture, captions = SORTS[kind_of_picture](rng)
    return replace(picture, captions=tuple(add_phrase(caption, rng) for caption in captions))


def words() -> set[str]:
    """Return every word that captions can contain, found by generating many pictures."""
    vocabulary: set[str] = set()
    for number in range(6000):
        for caption in imagine(f"words {number}").captions:
            vocabulary.update(caption.replace(",", " ").lower().split())
    return vocabulary
