"""Graph nodes of reference images, which FLUX.1 Kontext and FLUX.2 read beside the prompt. Does not import torch."""

from collections.abc import Sequence

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import CannotBuild, ReferenceImage


def add_references(
    builder: GraphBuilder, name: str, family: str, references: Sequence[ReferenceImage]
) -> NodeOutput | None:
    """Return reference images as a list for the denoise node `name`, None if there are none.

    `family` is the name for messages. Raises CannotBuild for an image with an IP-Adapter.
    """
    outputs = []
    for number, reference in enumerate(references):
        if reference.model is not None:
            raise CannotBuild(f"{family}: IP-Adapters are not supported")
        image = reference.image
        field = {"image_name": image} if isinstance(image, str) else image
        outputs.append(builder.output(f"{name}_kontext_{number}", "flux_kontext", "kontext_cond", image=field))
    return builder.collect(f"{name}_kontext_collect", outputs) if outputs else None
