"""Rules for ControlNets, T2I adapters and IP adapters of UNets; the preprocessor of a control model by its name."""

import re

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.defaults import ControlAdapterDefaultSettings
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Rule, require
from invokeclone.models.identify.signatures import forms, loras

_BASE_OF_WIDTH = {
    768: BaseModelType.StableDiffusion1,
    1024: BaseModelType.StableDiffusion2,
    1280: BaseModelType.StableDiffusionXL,
    2048: BaseModelType.StableDiffusionXL,
}
_PREFIXES = (
    "controlnet_cond_embedding.",
    "controlnet_down_blocks.",
    "controlnet_mid_block.",
    "control_model.",
    "input_blocks.",
)
FLUX_NAMES = ("controlnet_x_embedder.weight", "pos_embed_input.weight")
_ATTENTION = re.compile(r"(?:control_model\.)?(?:input|down|mid|middle)_blocks?\..*\.attn2\.to_k\.weight")
_MIDDLE = "controlnet_mid_block.bias"
_PROCESSORS = (
    ("canny", "canny_image_processor"), ("mlsd", "mlsd_image_processor"), ("depth", "depth_anything_image_processor"),
    ("bae", "normalbae_image_processor"), ("normal", "normalbae_image_processor"), ("sketch", "pidi_image_processor"),
    ("scribble", "lineart_image_processor"), ("lineart anime", "lineart_anime_image_processor"),
    ("lineart_anime", "lineart_anime_image_processor"), ("lineart", "lineart_image_processor"),
    ("soft", "hed_image_processor"), ("softedge", "hed_image_processor"), ("hed", "hed_image_processor"),
    ("shuffle", "content_shuffle_image_processor"), ("pose", "dw_openpose_image_processor"),
    ("mediapipe", "mediapipe_face_processor"), ("pidi", "pidi_image_processor"),
    ("zoe", "zoe_depth_image_processor"), ("color", "color_map_image_processor"),
)  # fmt: skip
_T2I_BASES = {
    "full_adapter": BaseModelType.StableDiffusion1,
    "light_adapter": BaseModelType.StableDiffusion1,
    "full_adapter_xl": BaseModelType.StableDiffusionXL,
}
_IP_PREFIXES = ("image_proj.", "ip_adapter.", "ip_adapter_proj_model.")


def control_settings(model: ModelFiles) -> ControlAdapterDefaultSettings:
    """Return the default settings of a control model: the preprocessor that its name suggests."""
    name = model.name.lower()
    return ControlAdapterDefaultSettings(preprocessor=next((full for word, full in _PROCESSORS if word in name), None))


SETTINGS = {"default_settings": control_settings}
FOLDER = {"default_settings": control_settings, "repo_variant": forms.repo_variant}


def controlnet_rules(file: type[ModelConfig], folder: type[ModelConfig]) -> tuple[Rule, Rule]:
    """Return the rules for ControlNets of a UNet."""
    return (
        Rule(config=file, recognizes=_is_controlnet, base=_base_of_controlnet, detectors=SETTINGS),
        Rule(
            config=folder,
            recognizes=forms.is_folder_of("ControlNetModel"),
            base=lambda model: _BASE_OF_WIDTH.get(forms.number(model.json("config.json"), "cross_attention_dim") or 0),
            detectors=FOLDER,
        ),
    )


def _is_controlnet(model: ModelFiles) -> None:
    require(not model.is_folder, "it is a folder")
    require(model.has_prefix(*_PREFIXES), "it has no tensors of a ControlNet")
    require(not any(name in model.tensors for name in FLUX_NAMES), "it is for a transformer")
    require(not model.has_prefix("output_blocks."), "it is a whole UNet")
    require(not loras.is_lora(model), "it is a LoRA")


def _base_of_controlnet(model: ModelFiles) -> BaseModelType | None:
    widths = [t.shape[-1] for name, t in model.tensors.items() if _ATTENTION.fullmatch(name) and t.shape]
    return _BASE_OF_WIDTH.get([*widths, *model.shape(_MIDDLE), 0][0])


def t2i_rule(config: type[ModelConfig]) -> Rule:
    """Return the rule for T2I adapters."""
    return Rule(
        config=config,
        recognizes=forms.is_folder_of("T2IAdapter"),
        base=lambda model: _T2I_BASES.get(str(model.json("config.json").get("adapter_type"))),
        detectors=FOLDER,
    )


def ip_adapter_rules(folder: type[ModelConfig], file: type[ModelConfig]) -> tuple[Rule, Rule]:
    """Return the rules for IP adapters of a UNet."""
    return (
        Rule(
            config=folder,
            recognizes=_is_ip_folder,
            base=lambda model: _base_of_ip(_ip_weights(model)),
            detectors={"image_encoder_model_id": _image_encoder},
        ),
        Rule(config=file, recognizes=_is_ip_file, base=_base_of_ip),
    )


def _ip_weights(model: ModelFiles) -> ModelFiles:
    return model.child("ip_adapter.bin")


def _is_ip_folder(model: ModelFiles) -> None:
    require(model.is_folder, "it is not a folder")
    require(_ip_weights(model).path.is_file(), "it has no ip_adapter.bin")
    require((model.path / "image_encoder.txt").is_file(), "it has no image_encoder.txt")


def _image_encoder(model: ModelFiles) -> str:
    lines = (model.path / "image_encoder.txt").read_text("utf-8", "replace").split("\n")
    return lines[0].strip()


def _is_ip_file(model: ModelFiles) -> None:
    require(not model.is_folder, "it is a folder")
    require(model.has_prefix(*_IP_PREFIXES), "it has no tensors of an IP adapter")
    require(not is_flux_ip_adapter(model), "it is for FLUX.1")


def is_flux_ip_adapter(model: ModelFiles) -> bool:
    """Return whether a file is an IP adapter for FLUX.1."""
    return model.has_prefix("ip_adapter_proj_model.") and any(
        ".processor.ip_adapter_double_stream" in n for n in model.tensors
    )


def _base_of_ip(model: ModelFiles) -> BaseModelType | None:
    shape = model.shape("ip_adapter.1.to_k_ip.weight")
    return _BASE_OF_WIDTH.get(shape[-1]) if shape else None
