"""How a prompt becomes a gradient: it has no say."""

from typing import Any

from invokeclone.graph.recipes import OUTPUT, PROMPT, SEED, Drawing, Picture, Usual, recipe
from invokeclone.graph.taxonomy import BaseModelType


@recipe(BaseModelType.StableDiffusion3, usual=Usual(side=96, grid=16))
def draw(picture: Picture) -> dict[str, Any]:
    """Return the graph."""
    drawing = Drawing("gradient")
    drawing.node(SEED, "integer", value=picture.seed)
    drawing.node(PROMPT, "string", value=picture.prompt)
    drawing.node(OUTPUT, "gradient_paint", model=dict(picture.model), width=picture.width)
    drawing.result(OUTPUT, picture.board_id)
    return drawing.graph()
