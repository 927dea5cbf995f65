"""Rules for PiD decoders: the base by the number of latent channels, or by name where several bases share it."""

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, PiDDecoderVariantType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Rule, require

_WIDTH = 512
_BASES = {
    4: (BaseModelType.StableDiffusionXL,),
    16: (BaseModelType.Flux, BaseModelType.StableDiffusion3, BaseModelType.QwenImage),
    128: (BaseModelType.Flux2,),
}
_HINTS = {
    "flux": BaseModelType.Flux,
    "sd3": BaseModelType.StableDiffusion3,
    "qwen": BaseModelType.QwenImage,
}


def rule(config: type[ModelConfig], base: BaseModelType) -> Rule:
    """Return the rule for PiD decoders of `base`."""

    def recognizes(model: ModelFiles) -> None:
        require(not model.is_folder, "it is a folder")
        require(base in _bases(model), "it has no tensors of a PiD decoder for these latents")

    return Rule(config=config, recognizes=recognizes, base=_base, detectors={"variant": _variant}, base_is_guess=True)


def _bases(model: ModelFiles) -> tuple[BaseModelType, ...]:
    shapes = [
        t.shape for name, t in model.tensors.items() if name.split("lq_proj.")[0] in {"", "net."} and "lq_proj." in name
    ]
    latents = (shape[1] for shape in shapes if len(shape) > 1 and shape[0] == _WIDTH and shape[1] in _BASES)
    return _BASES.get(next(latents, 0), ())


def _base(model: ModelFiles) -> BaseModelType | None:
    possible, name = _bases(model), model.name.lower()
    hinted = (base for hint, base in _HINTS.items() if hint in name and base in possible)
    return next(hinted, possible[0] if possible else None)


def _variant(model: ModelFiles) -> PiDDecoderVariantType:
    larger = "2kto4k" in model.name.lower().replace("_", "").replace("-", "")
    return PiDDecoderVariantType.Res2kTo4kSR4x if larger else PiDDecoderVariantType.Res2kSR4x
