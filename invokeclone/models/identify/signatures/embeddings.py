"""Rules for textual inversions: a few vectors of the width of the text encoder's token embeddings."""

import math

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Rule, require

_NAMES = ("learned_embeds.safetensors", "learned_embeds.bin")
_MARKS = ("string_to_param", "emb_params", "clip_g")
_TENSOR_LIMIT = 10
_VECTOR_LIMIT = 1024
"""Maximum number of vectors in a tensor; larger ones are vocabularies or layers."""
_BASE_OF_WIDTH = {
    768: BaseModelType.StableDiffusion1,
    1024: BaseModelType.StableDiffusion2,
    1280: BaseModelType.StableDiffusionXL,
}


def rules(file: type[ModelConfig], folder: type[ModelConfig]) -> tuple[Rule, Rule]:
    """Return the rules for a family's textual inversions."""
    return (
        Rule(config=file, recognizes=_is_file, base=_base),
        Rule(config=folder, recognizes=_is_folder, base=lambda model: _base(_weights(model))),
    )


def _weights(model: ModelFiles) -> ModelFiles:
    return next((file for file in map(model.child, _NAMES) if file.path.is_file()), model)


def _is_folder(model: ModelFiles) -> None:
    require(model.is_folder, "it is not a folder")
    require(_weights(model) is not model, "it has no learned_embeds")


def _is_file(model: ModelFiles) -> None:
    require(not model.is_folder, "it is a folder")
    has_known_name = model.path.name in _NAMES or any(name.split(".")[0] in _MARKS for name in model.tensors)
    require(has_known_name or _has_few_vectors(model), "it has no token embeddings")


def _has_few_vectors(model: ModelFiles) -> bool:
    shapes = [tensor.shape for tensor in model.tensors.values()]
    is_small = 0 < len(shapes) < _TENSOR_LIMIT
    return is_small and all(
        len(shape) in {1, 2} and shape[-1] in _BASE_OF_WIDTH and math.prod(shape[:-1]) <= _VECTOR_LIMIT
        for shape in shapes
    )


def _base(model: ModelFiles) -> BaseModelType | None:
    first = next(iter(model.tensors.values()), None)
    shape = model.shape("clip_g") or model.shape("emb_params") or (first.shape if first else ())
    return _BASE_OF_WIDTH.get(shape[-1]) if shape else None
