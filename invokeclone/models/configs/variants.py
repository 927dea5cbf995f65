"""The union of all types of a record's `variant`."""

from invokeclone.graph.vocabulary.taxonomy import (
    ClipVariantType,
    Flux2VariantType,
    FluxVariantType,
    Krea2VariantType,
    MistralVariantType,
    ModelVariantType,
    PiDDecoderVariantType,
    Qwen3VariantType,
    QwenImageVariantType,
    WanLoRAVariantType,
    WanVariantType,
    ZImageVariantType,
)

AnyVariant = (
    ModelVariantType
    | ClipVariantType
    | FluxVariantType
    | Flux2VariantType
    | ZImageVariantType
    | QwenImageVariantType
    | WanVariantType
    | WanLoRAVariantType
    | Qwen3VariantType
    | Krea2VariantType
    | MistralVariantType
    | PiDDecoderVariantType
)
