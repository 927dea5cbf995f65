"""What a model family is told when somebody wants a picture and doesn't care which nodes make it, and where it says how.

A family registers a recipe for its bases in `families/<name>/recipe.py`; `queue/generation.py` finds it, chooses what the
caller left open and makes a batch of the graph. It knows no node but the ids that every recipe must use.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field

from invokeclone.graph.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.taxonomy import BaseModelType

SEED = "seed"
"""The id of the integer node that holds the seed; batches put other seeds there."""
VARIATION = "variation_seed"
"""The id of the integer node that holds the seed of the variation, where one is asked for."""
PROMPT = "positive_prompt"
"""The id of the string node that holds the prompt."""
OUTPUT = "canvas_output"
"""The id of the node whose picture is the result."""

PromptLanguage = Literal["native", "plain"]
"""`native`: the prompt is written in the family's own language of weights; `plain`: every character means itself."""

Unfilled = Literal["original", "noise"]
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Start:
    """The picture that a run begins with."""

    image: str
    """Its name among the images."""
    strength: Share = 0.75
    """How much is made new."""
    resize: bool = False
    """Whether it must be brought to the wanted size first."""


@dataclass(frozen=True)
class Keep:
    """What of the picture at the start stays."""

    mask: str
    """The name of a mask image of the picture's size: white stays, black is made new."""
    feather: Annotated[int, Field(ge=0, le=256)] = 0
    """Width of the border that fades from old to new, in pixels."""
    paste: bool = True
    """Whether the pixels that stay are put back exactly."""
    fill: Unfilled = "original"
    """What the changing part begins with."""


@dataclass(frozen=True)
class Enlarge:
    """A second run over the enlarged result of the first."""

    width: Pixels
    height: Pixels
    steps: Annotated[int, Field(ge=1, le=1000)]
    strength: Share = 0.7
    scheduler: SCHEDULER_NAME_VALUES | None = None
    """None: that of the first run."""
    in_pixels: bool = False
    """Whether pixels are enlarged, and not latents."""
    resample: Literal["lanczos", "nearest"] = "lanczos"
    """How pixels are enlarged."""


@dataclass(frozen=True)
class Within:
    """The place in a larger picture that the result is put into; the larger picture is then the result. Sizes in pixels."""

    image: str
    """The larger picture's name among the images."""
    mask: str
    """The name of a mask of the place's size: white keeps the larger picture."""
    left: int
    top: int
    width: Pixels
    height: Pixels


@dataclass(frozen=True)
class Variation:
    """A second seed whose noise is blended in."""

    seed: int
    strength: float
    """0..1."""


@dataclass(frozen=True)
class Picture:
    """Everything that is to be known about a picture before it is made; nothing is left to be chosen. Sizes in pixels."""

    model: Mapping[str, Any]
    """key, hash, name, base and type of a model record."""
    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    cfg_scale: float
    scheduler: str
    negative_prompt: str = ""
    language: PromptLanguage = "native"
    cfg_rescale: float = 0.0
    clip_skip: int = 0
    vae: Mapping[str, Any] | None = None
    seamless: bool = False
    start: Start | None = None
    keep: Keep | None = None
    enlarge: Enlarge | None = None
    variation: Variation | None = None
    within: Within | None = None
    """For every family alike: `put_within` does it to the graph that a recipe has drawn."""
    board_id: str | None = None


@dataclass(frozen=True)
class Usual:
    """What pictures of a base are usually made with, where the model's own settings say nothing."""

    side: int = 512
    grid: int = 8
    """Both sides must be multiples of this."""
    steps: int = 30
    cfg_scale: float = 7.5
    scheduler: str = "euler"


class CannotBeDrawn(ValueError):
    """A family has no way to make the picture that is asked for."""


@dataclass(frozen=True)
class Recipe:
    """How a family makes a picture: its usual values and the function that draws the graph."""

    usual: Usual
    draw: Callable[[Picture], dict[str, Any]]
    """Return the graph as a dict of `id`, `nodes` and `edges`; raises CannotBeDrawn."""


@dataclass
class Drawing:
    """A graph while it is drawn. Ends of edges are written `node.field`."""

    name: str
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[dict[str, dict[str, str]]] = field(default_factory=list)

    def node(self, node_id: str, node_type: str, **inputs: Any) -> str:
        """Add a node whose results are only steps on the way; returns its id."""
        common = {"id": node_id, "type": node_type, "is_intermediate": True, "use_cache": True}
        self.nodes[node_id] = common | inputs
        return node_id

    def connect(self, source: str, *targets: str) -> None:
        """Lead an output to inputs."""
        self.edges += [{"source": _end(source), "destination": _end(target)} for target in targets]

    def result(self, node_id: str, board_id: str | None) -> None:
        """Let a node's picture be the result: kept in the gallery, made anew each time."""
        self.nodes[node_id] |= {"is_intermediate": False, "use_cache": False}
        if board_id:
            self.nodes[node_id]["board"] = {"board_id": board_id}

    def graph(self) -> dict[str, Any]:
        """Return the graph."""
        return {"id": self.name, "nodes": self.nodes, "edges": self.edges}


def _end(place: str) -> dict[str, str]:
    node_id, _, field_name = place.partition(".")
    return {"node_id": node_id, "field": field_name}


PART = "part"
"""The id of the node that makes the part, where the result is a larger picture."""


def put_within(graph: dict[str, Any], within: Within) -> dict[str, Any]:
    """Return the graph with its result put into a larger picture, which is the result now and has the metadata."""
    nodes = {name: node for name, node in graph["nodes"].items() if name != OUTPUT}
    made = graph["nodes"][OUTPUT]
    drawing = Drawing(graph["id"], nodes, [])
    nodes[PART] = {name: value for name, value in made.items() if name != "board"}
    nodes[PART] |= {"id": PART, "is_intermediate": True, "use_cache": True}
    for edge in graph["edges"]:
        end = edge["destination"]
        belongs = end["node_id"] == OUTPUT and end["field"] != "metadata"
        drawing.edges.append({**edge, "destination": {**end, "node_id": PART}} if belongs else edge)
    size = {"width": within.width, "height": within.height}
    drawing.node("part_in_size", "img_resize", resample_mode="lanczos", **size)
    drawing.connect(f"{PART}.image", "part_in_size.image")
    place = {"x": within.left, "y": within.top, "crop": True}
    below = {"base_image": {"image_name": within.image}, "mask": {"image_name": within.mask}}
    drawing.node(OUTPUT, "img_paste", **below, **place)
    drawing.connect("part_in_size.image", f"{OUTPUT}.image")
    drawing.result(OUTPUT, None)
    if "board" in made:
        nodes[OUTPUT]["board"] = made["board"]
    return drawing.graph()


_recipes: dict[BaseModelType, Recipe] = {}


def recipe(
    *bases: BaseModelType, usual: Usual
) -> Callable[[Callable[[Picture], dict[str, Any]]], Callable[[Picture], dict[str, Any]]]:
    """Register the decorated function as the way to draw a picture's graph for models of `bases`."""

    def register(draw: Callable[[Picture], dict[str, Any]]) -> Callable[[Picture], dict[str, Any]]:
        _recipes.update(dict.fromkeys(bases, Recipe(usual, draw)))
        return draw

    return register


@cache
def _discover() -> None:
    """Import `invokeclone.families.*.recipe`, where recipes register themselves."""
    families = importlib.import_module("invokeclone.families")
    for info in pkgutil.iter_modules(families.__path__):
        name = f"{families.__name__}.{info.name}.recipe"
        if info.ispkg and importlib.util.find_spec(name):
            importlib.import_module(name)


def recipes() -> Mapping[BaseModelType, Recipe]:
    """Return every recipe by base; the families are looked through once."""
    _discover()
    return _recipes
