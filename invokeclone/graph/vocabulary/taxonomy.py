"""Taxonomy of models and images: base, type, format, variant, category. Values are those of the API."""

from enum import StrEnum


class BaseModelType(StrEnum):
    """Architecture of a model."""

    Any = "any"
    StableDiffusion1 = "sd-1"
    StableDiffusion2 = "sd-2"
    StableDiffusion3 = "sd-3"
    StableDiffusionXL = "sdxl"
    StableDiffusionXLRefiner = "sdxl-refiner"
    Flux = "flux"
    Flux2 = "flux2"
    CogView4 = "cogview4"
    ZImage = "z-image"
    ErnieImage = "ernie-image"
    Ideogram4 = "ideogram-4"
    External = "external"
    QwenImage = "qwen-image"
    Anima = "anima"
    Krea2 = "krea-2"
    Wan = "wan"
    Unknown = "unknown"


class ModelType(StrEnum):
    """Role of a model."""

    ONNX = "onnx"
    Main = "main"
    VAE = "vae"
    LoRA = "lora"
    ControlLoRa = "control_lora"
    ControlNet = "controlnet"
    TextualInversion = "embedding"
    IPAdapter = "ip_adapter"
    CLIPVision = "clip_vision"
    CLIPEmbed = "clip_embed"
    T2IAdapter = "t2i_adapter"
    T5Encoder = "t5_encoder"
    Qwen3Encoder = "qwen3_encoder"
    QwenVLEncoder = "qwen_vl_encoder"
    Qwen3VLEncoder = "qwen3_vl_encoder"
    MistralEncoder = "mistral_encoder"
    WanT5Encoder = "wan_t5_encoder"
    Gemma2Encoder = "gemma2_encoder"
    SpandrelImageToImage = "spandrel_image_to_image"
    SigLIP = "siglip"
    FluxRedux = "flux_redux"
    LlavaOnevision = "llava_onevision"
    PromptEnhancer = "prompt_enhancer"
    TextLLM = "text_llm"
    ExternalImageGenerator = "external_image_generator"
    PiDDecoder = "pid_decoder"
    Unknown = "unknown"


class ModelFormat(StrEnum):
    """File format of a model."""

    OMI = "omi"
    Diffusers = "diffusers"
    Checkpoint = "checkpoint"
    LyCORIS = "lycoris"
    ONNX = "onnx"
    Olive = "olive"
    EmbeddingFile = "embedding_file"
    EmbeddingFolder = "embedding_folder"
    InvokeAI = "invokeai"
    T5Encoder = "t5_encoder"
    Qwen3Encoder = "qwen3_encoder"
    QwenVLEncoder = "qwen_vl_encoder"
    Qwen3VLEncoder = "qwen3_vl_encoder"
    MistralEncoder = "mistral_encoder"
    WanT5Encoder = "wan_t5_encoder"
    Gemma2Encoder = "gemma2_encoder"
    BnbQuantizedLlmInt8b = "bnb_quantized_int8b"
    BnbQuantizednf4b = "bnb_quantized_nf4b"
    GGUFQuantized = "gguf_quantized"
    ExternalApi = "external_api"
    SDNQQuantized = "sdnq_quantized"
    Unknown = "unknown"


class SubModelType(StrEnum):
    """Part of a model that can be loaded separately."""

    UNet = "unet"
    Transformer = "transformer"
    Transformer2 = "transformer_2"
    TextEncoder = "text_encoder"
    TextEncoder2 = "text_encoder_2"
    TextEncoder3 = "text_encoder_3"
    Tokenizer = "tokenizer"
    Tokenizer2 = "tokenizer_2"
    Tokenizer3 = "tokenizer_3"
    PE = "pe"
    PETokenizer = "pe_tokenizer"
    VAE = "vae"
    VAEDecoder = "vae_decoder"
    VAEEncoder = "vae_encoder"
    Scheduler = "scheduler"
    SafetyChecker = "safety_checker"


class ModelVariantType(StrEnum):
    """Inputs of a UNet beside noise and text."""

    Normal = "normal"
    Inpaint = "inpaint"
    Depth = "depth"


class ClipVariantType(StrEnum):
    """Size of a CLIP text encoder."""

    L = "large"
    G = "gigantic"


class FluxVariantType(StrEnum):
    """Published variants of FLUX.1."""

    Schnell = "schnell"
    Dev = "dev"
    DevFill = "dev_fill"


class Flux2VariantType(StrEnum):
    """Published variants of FLUX.2."""

    Klein4B = "klein_4b"
    Klein4BBase = "klein_4b_base"
    Klein9B = "klein_9b"
    Klein9BBase = "klein_9b_base"
    Dev = "dev"


class ZImageVariantType(StrEnum):
    """Published variants of Z-Image."""

    Turbo = "turbo"
    ZBase = "zbase"


class QwenImageVariantType(StrEnum):
    """Published variants of Qwen-Image."""

    Generate = "generate"
    Edit = "edit"


class Krea2VariantType(StrEnum):
    """Published variants of Krea-2."""

    Turbo = "krea2_turbo"
    Base = "krea2_base"


class WanVariantType(StrEnum):
    """Published variants of Wan."""

    T2V_A14B = "t2v_a14b"
    I2V_A14B = "i2v_a14b"
    TI2V_5B = "ti2v_5b"


class WanLoRAVariantType(StrEnum):
    """The Wan model that a LoRA was trained for."""

    A14B = "a14b"
    FiveB = "5b"


class Qwen3VariantType(StrEnum):
    """Sizes of the Qwen3 text encoder."""

    Qwen3_4B = "qwen3_4b"
    Qwen3_8B = "qwen3_8b"
    Qwen3_06B = "qwen3_06b"


class MistralVariantType(StrEnum):
    """Published variants of the Mistral text encoder."""

    CowMistral3Small = "cow_mistral3_small"
    Mistral3_24B = "mistral3_24b"


class PiDDecoderVariantType(StrEnum):
    """Resolution and upscale factor that a PiD decoder was trained for."""

    Res2kSR4x = "res2k_sr4x"
    Res2kTo4kSR4x = "res2kto4k_sr4x"


class SchedulerPredictionType(StrEnum):
    """Prediction type of the denoiser."""

    Epsilon = "epsilon"
    VPrediction = "v_prediction"
    Sample = "sample"


class ModelSourceType(StrEnum):
    """Kind of a model's source."""

    Path = "path"
    Url = "url"
    HFRepoID = "hf_repo_id"
    External = "external"


class ModelRepoVariant(StrEnum):
    """Variants of weights in a Hugging Face repository."""

    Default = ""
    FP16 = "fp16"
    FP32 = "fp32"
    ONNX = "onnx"
    OpenVINO = "openvino"
    Flax = "flax"


class ImageCategory(StrEnum):
    """Purpose of an image; the gallery shows GENERAL images."""

    GENERAL = "general"
    MASK = "mask"
    CONTROL = "control"
    USER = "user"
    OTHER = "other"


class ResourceOrigin(StrEnum):
    """Whether an image was generated or uploaded."""

    INTERNAL = "internal"
    EXTERNAL = "external"


VARIANT_TYPES = (
    ModelVariantType,
    ClipVariantType,
    FluxVariantType,
    Flux2VariantType,
    ZImageVariantType,
    QwenImageVariantType,
    Krea2VariantType,
    WanVariantType,
    WanLoRAVariantType,
    Qwen3VariantType,
    MistralVariantType,
    PiDDecoderVariantType,
)
"""Enums whose values are valid for `variant` of a model record."""


class Classification(StrEnum):
    """Stability of a node, or its special role in editors."""

    Stable = "stable"
    Beta = "beta"
    Prototype = "prototype"
    Deprecated = "deprecated"
    Internal = "internal"
    Special = "special"
