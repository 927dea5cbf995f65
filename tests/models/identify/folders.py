"""Model folders as they are published: (record class, label, files, fields of the record)."""

from typing import Any

from tests.models.identify import component_layouts as parts

QUANTIZED = {"quantization_config": {"quant_method": "sdnq", "weights_dtype": "uint4"}}
INDEX, CONFIG, WEIGHTS = "model_index.json", "config.json", "model.safetensors"
HOLE = {"x": (1,)}


def pipeline(
    name: str, transformer: dict[str, Any] | None = None, part: str = "transformer", **index: Any
) -> dict[str, Any]:
    """Return a pipeline of diffusers: its index, the configurations of its parts, and weights."""
    listed = {
        part: ["diffusers", "X"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    return {
        INDEX: {"_class_name": name, "_diffusers_version": "0.30.0", **listed, **index},
        f"{part}/{CONFIG}": {"_class_name": "Net", **(transformer or {})},
        f"{part}/diffusion_pytorch_model.safetensors": HOLE,
        f"text_encoder/{CONFIG}": {"architectures": ["CLIPTextModel"], "hidden_size": 768},
        f"text_encoder/{WEIGHTS}": HOLE,
        f"vae/{CONFIG}": {"_class_name": "AutoencoderKL", "latent_channels": 4},
        "vae/diffusion_pytorch_model.safetensors": HOLE,
        "scheduler/scheduler_config.json": {"prediction_type": "epsilon"},
    }  # fmt: skip


def unet_pipeline(name: str, context: int, channels: int = 4) -> dict[str, Any]:
    return pipeline(name, {"cross_attention_dim": context, "in_channels": channels}, "unet")


def encoder(name: str, **config: Any) -> dict[str, Any]:
    """Return an encoder of transformers with its tokenizer."""
    return {CONFIG: {"architectures": [name], **config}, WEIGHTS: HOLE, "tokenizer.json": {}}


def below(part: str, files: dict[str, Any]) -> dict[str, Any]:
    return {f"{part}/{name}": content for name, content in files.items()}


def diffusers(name: str, **config: Any) -> dict[str, Any]:
    return {CONFIG: {"_class_name": name, **config}, "diffusion_pytorch_model.safetensors": HOLE}


CLIP = {"architectures": ["CLIPModel"], "text_config": {"hidden_size": 768}, "vision_config": {"hidden_size": 1024}}
T5 = {f"text_encoder_2/{CONFIG}": {"architectures": ["T5EncoderModel"]}, "tokenizer_2/tokenizer.json": {}}
SHARD = "model-00001-of-00001.safetensors"
SHARDS = {"text_encoder_2/model.safetensors.index.json": {"weight_map": {"x": SHARD}}, f"text_encoder_2/{SHARD}": HOLE}
MISTRAL = {"text_config": {"hidden_size": 5120, "num_hidden_layers": 40}}
QWEN3_VL = {"text_config": {"hidden_size": 2560, "num_hidden_layers": 36}}

FOLDERS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("Main_Diffusers_SD1_Config", "pipeline", unet_pipeline("StableDiffusionPipeline", 768), {"variant": "normal", "prediction_type": "epsilon"}),
    ("Main_Diffusers_SD1_Config", "inpaint", unet_pipeline("StableDiffusionInpaintPipeline", 768, 9), {"variant": "inpaint"}),
    ("Main_Diffusers_SD2_Config", "pipeline", unet_pipeline("StableDiffusionPipeline", 1024), {"variant": "normal"}),
    ("Main_Diffusers_SDXL_Config", "pipeline", unet_pipeline("StableDiffusionXLPipeline", 2048), {"variant": "normal"}),
    ("Main_Diffusers_SDXLRefiner_Config", "pipeline", unet_pipeline("StableDiffusionXLImg2ImgPipeline", 1280), {}),
    ("Main_Diffusers_SD3_Config", "pipeline", pipeline("StableDiffusion3Pipeline"), {}),
    ("Main_Diffusers_FLUX_Config", "dev", pipeline("FluxPipeline", {"guidance_embeds": True, "in_channels": 64}), {"variant": "dev"}),
    ("Main_Diffusers_FLUX_Config", "kontext", pipeline("FluxKontextPipeline", {"guidance_embeds": True}), {"variant": "dev"}),
    ("Main_Diffusers_FLUX_Config", "canny", pipeline("FluxControlPipeline", {"guidance_embeds": True, "in_channels": 128}), {"variant": "dev"}),
    ("Main_Diffusers_FLUX_Config", "fill", pipeline("FluxFillPipeline", {"guidance_embeds": True, "in_channels": 384}), {"variant": "dev_fill"}),
    ("Main_Diffusers_FLUX_Config", "transformer", diffusers("FluxTransformer2DModel", guidance_embeds=False), {"variant": "schnell"}),
    ("Main_SDNQ_Diffusers_FLUX_Config", "dev", pipeline("FluxPipeline", {"guidance_embeds": True} | QUANTIZED), {"variant": "dev"}),
    ("Main_Diffusers_Flux2_Config", "dev", pipeline("Flux2Pipeline", {"joint_attention_dim": 15360}), {"variant": "dev"}),
    ("Main_Diffusers_Flux2_Config", "klein", pipeline("Flux2KleinPipeline", {"joint_attention_dim": 7680}), {"variant": "klein_4b"}),
    ("Main_SDNQ_Diffusers_Flux2_Config", "klein", pipeline("Flux2KleinPipeline", {"joint_attention_dim": 12288} | QUANTIZED), {"variant": "klein_9b"}),
    ("Main_Diffusers_CogView4_Config", "pipeline", pipeline("CogView4Pipeline"), {}),
    ("Main_Diffusers_ZImage_Config", "turbo", pipeline("ZImagePipeline"), {"variant": "turbo"}),
    ("Main_Diffusers_ZImage_Config", "base", pipeline("ZImagePipeline") | {"scheduler/scheduler_config.json": {"shift": 6.0}}, {"variant": "zbase"}),
    ("Main_SDNQ_Diffusers_ZImage_Config", "turbo", pipeline("ZImagePipeline", QUANTIZED), {"variant": "turbo"}),
    ("Main_Diffusers_ErnieImage_Config", "pipeline", pipeline("ErnieImagePipeline"), {}),
    ("Main_Diffusers_Ideogram4_Config", "pipeline", pipeline("Ideogram4Pipeline"), {}),
    ("Main_Diffusers_QwenImage_Config", "generate", pipeline("QwenImagePipeline"), {"variant": "generate"}),
    ("Main_Diffusers_QwenImage_Config", "edit", pipeline("QwenImageEditPlusPipeline"), {"variant": "edit"}),
    ("Main_Diffusers_Krea2_Config", "base", pipeline("Krea2Pipeline", is_distilled=False), {"variant": "krea2_base"}),
    ("Main_Diffusers_Wan_Config", "t2v", pipeline("WanPipeline", transformer_2=["diffusers", "W"], boundary_ratio=0.875), {"variant": "t2v_a14b", "has_dual_expert": True, "boundary_ratio": 0.875}),
    ("Main_Diffusers_Wan_Config", "5b", pipeline("WanPipeline", {"in_channels": 48}), {"variant": "ti2v_5b", "has_dual_expert": False}),
    ("VAE_Diffusers_SD1_Config", "folder", diffusers("AutoencoderKL", latent_channels=4), {}),
    ("VAE_Diffusers_SDXL_Config", "folder", diffusers("AutoencoderKL", scaling_factor=0.13025, sample_size=1024), {}),
    ("VAE_Diffusers_Flux2_Config", "folder", diffusers("AutoencoderKLFlux2"), {}),
    ("VAE_Diffusers_Wan_Config", "16", diffusers("AutoencoderKLWan", z_dim=16), {"latent_channels": 16}),
    ("VAE_Diffusers_Wan_Config", "48", diffusers("AutoencoderKLWan", z_dim=48), {"latent_channels": 48}),
    ("ControlNet_Diffusers_SD1_Config", "folder", diffusers("ControlNetModel", cross_attention_dim=768), {}),
    ("ControlNet_Diffusers_SD2_Config", "folder", diffusers("ControlNetModel", cross_attention_dim=1024), {}),
    ("ControlNet_Diffusers_SDXL_Config", "folder", diffusers("ControlNetModel", cross_attention_dim=2048), {}),
    ("ControlNet_Diffusers_FLUX_Config", "folder", diffusers("FluxControlNetModel"), {}),
    ("T2IAdapter_Diffusers_SD1_Config", "light", diffusers("T2IAdapter", adapter_type="light_adapter"), {}),
    ("T2IAdapter_Diffusers_SDXL_Config", "full", diffusers("T2IAdapter", adapter_type="full_adapter_xl"), {}),
    ("CLIPEmbed_Diffusers_L_Config", "encoder", encoder("CLIPTextModel", hidden_size=768), {"variant": "large"}),
    ("CLIPEmbed_Diffusers_L_Config", "below", below("text_encoder", encoder("CLIPTextModel", hidden_size=768)), {"variant": "large"}),
    ("CLIPEmbed_Diffusers_L_Config", "whole-without-vision", {CONFIG: CLIP, WEIGHTS: parts.clip_text()}, {"variant": "large"}),
    ("CLIPEmbed_Diffusers_G_Config", "encoder", encoder("CLIPTextModelWithProjection", hidden_size=1280), {"variant": "gigantic"}),
    ("CLIPVision_Diffusers_Config", "projection", encoder("CLIPVisionModelWithProjection", hidden_size=1280), {}),
    ("CLIPVision_Diffusers_Config", "vision", encoder("CLIPVisionModel", hidden_size=1024), {}),
    ("CLIPVision_Diffusers_Config", "whole-without-text", {CONFIG: CLIP, WEIGHTS: parts.clip_vision()}, {}),
    ("CLIPVision_Diffusers_Config", "whole", {CONFIG: CLIP, WEIGHTS: parts.clip_vision() | parts.clip_text()}, {}),
    ("SigLIP_Diffusers_Config", "encoder", encoder("SiglipModel"), {}),
    ("LlavaOnevision_Diffusers_Config", "model", encoder("LlavaOnevisionForConditionalGeneration"), {}),
    ("TextLLM_Diffusers_Config", "model", encoder("LlamaForCausalLM", hidden_size=2048), {}),
    ("T5Encoder_T5Encoder_Config", "shards", T5 | SHARDS, {}),
    ("T5Encoder_SDNQ_Config", "folder", T5 | {f"text_encoder_2/{CONFIG}": {"architectures": ["T5EncoderModel"]} | QUANTIZED, f"text_encoder_2/{WEIGHTS}": HOLE}, {}),
    ("T5Encoder_BnBLLMint8_Config", "folder", T5 | {"text_encoder_2/bnb_llm_int8_model.safetensors": parts.t5_int8()}, {}),
    ("Qwen3Encoder_Qwen3Encoder_Config", "folder", encoder("Qwen3ForCausalLM", hidden_size=2560), {"variant": "qwen3_4b"}),
    ("Qwen3Encoder_SDNQ_Folder_Config", "folder", encoder("Qwen3Model", hidden_size=4096, **QUANTIZED), {"variant": "qwen3_8b"}),
    ("Qwen3VLEncoder_Qwen3VLEncoder_Config", "folder", encoder("Qwen3VLForConditionalGeneration", **QWEN3_VL), {}),
    ("QwenVLEncoder_Diffusers_Config", "below", below("text_encoder", encoder("Qwen2_5_VLForConditionalGeneration")), {}),
    ("MistralEncoder_Diffusers_Config", "folder", encoder("Mistral3ForConditionalGeneration", **MISTRAL), {"variant": "mistral3_24b"}),
    ("Gemma2Encoder_Gemma2Encoder_Config", "folder", encoder("Gemma2Model", hidden_size=2304), {}),
    ("WanT5Encoder_WanT5Encoder_Config", "folder", encoder("UMT5EncoderModel", model_type="umt5"), {}),
]  # fmt: skip
