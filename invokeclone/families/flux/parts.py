"""Which parts a FLUX.1 main model comes with, besides its transformer."""

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import ModelFormat, SubModelType

_KINDS = {
    SubModelType.TextEncoder: ("CLIP-L text encoder", "openai/clip-vit-large-patch14"),
    SubModelType.TextEncoder2: ("T5 encoder", "InvokeAI/t5-v1_1-xxl::bfloat16"),
    SubModelType.VAE: ("VAE of FLUX.1", "black-forest-labs/FLUX.1-schnell::ae.safetensors"),
}
"""The name of each part, and where a model with it can be installed from."""


class MissingPart(ValueError):
    """A model needs a part that neither it nor the graph provides."""

    def __init__(self, model: str, part: SubModelType, field: str) -> None:
        kind, source = _KINDS[part]
        super().__init__(
            f"{model} comes without a {kind}: install one, for example {source} (the starter models have it), and "
            f"select it as {field}"
        )


def has_part(context: InvocationContext, model: ModelIdentifierField, part: SubModelType) -> bool:
    """Return whether a main model's files include a part."""
    record = context.models.get_config(model.key)
    if record.format not in (ModelFormat.Diffusers, ModelFormat.SDNQQuantized):
        return False
    path = context.models.get_absolute_path(record)
    return (path / str(part)).is_dir()
