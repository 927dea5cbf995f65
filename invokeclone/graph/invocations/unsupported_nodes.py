"""Node types of InvokeAI that are not supported yet: what they require, and alternatives."""

from typing import NamedTuple


class UnsupportedNode(NamedTuple):
    """What a node type requires, and an alternative."""

    requirement: str
    alternative: str = ""


def _family(name: str) -> UnsupportedNode:
    return UnsupportedNode(name, "choose a model of another architecture")


_GRAY = UnsupportedNode("a detector model", "use canny_edge_detection, content_shuffle or an uploaded image")

_TYPES: dict[str, UnsupportedNode] = {
    **dict.fromkeys(
        (
            "depth_anything_depth_estimation",
            "dw_openpose_detection",
            "hed_edge_detection",
            "lineart_anime_edge_detection",
            "lineart_edge_detection",
            "mediapipe_face_detection",
            "mlsd_detection",
            "normal_map",
            "pidi_edge_detection",
        ),
        _GRAY,
    ),
    "pbr_maps": UnsupportedNode("a model that computes PBR maps", "use uploaded maps"),
    "img_nsfw": UnsupportedNode("an image classifier", "remove the node"),
    **dict.fromkeys(("decode_watermark", "img_watermark"), UnsupportedNode("a watermark model", "remove the node")),
    **dict.fromkeys(("grounding_dino", "segment_anything"), UnsupportedNode("a segmentation model", "draw the mask")),
    **dict.fromkeys(
        ("face_identifier", "face_mask_detection", "face_off"), UnsupportedNode("a face model", "draw the mask")
    ),
    "llava_onevision_vllm": UnsupportedNode(
        "LLaVA OneVision", "use /api/v1/utilities/image-to-prompt or write the text"
    ),
    **dict.fromkeys(
        (
            "flux2_pid_decode",
            "flux_pid_decode",
            "gemma2_encoder_loader",
            "pid_decoder_loader",
            "pid_upscale",
            "qwen_image_pid_decode",
            "sd3_pid_decode",
            "sdxl_pid_decode",
            "z_image_pid_decode",
        ),
        UnsupportedNode("the PiD decoder", "decode with the model's VAE, and enlarge with img_resize or img_scale"),
    ),
    **dict.fromkeys(
        (
            "alibabacloud_image_generation",
            "gemini_image_generation",
            "openai_image_generation",
            "seedream_image_generation",
        ),
        UnsupportedNode("an online service", "choose an installed model"),
    ),
    **dict.fromkeys(
        ("extract_video_range", "video", "video_concat", "video_frame_extract"),
        UnsupportedNode("support for video files", "use an uploaded frame of the video"),
    ),
}

_FAMILIES: dict[str, tuple[str, ...]] = {
    "Anima": (
        "anima_denoise", "anima_denoise_meta", "anima_i2l", "anima_l2i", "anima_lllite", "anima_lora_collection_loader",
        "anima_lora_loader", "anima_model_loader", "anima_text_encoder",
    ),
    "ERNIE-Image": (
        "ernie_image_denoise", "ernie_image_model_loader", "ernie_image_prompt_enhancer", "ernie_image_text_encoder",
        "ernie_image_vae_decode",
    ),
    "Ideogram 4": (
        "ideogram4_caption_builder", "ideogram4_denoise", "ideogram4_l2i", "ideogram4_model_loader",
        "ideogram4_text_encoder",
    ),
    "Krea-2": (
        "krea2_conditioning_rebalance", "krea2_denoise", "krea2_lora_collection_loader", "krea2_lora_loader",
        "krea2_model_loader", "krea2_seed_variance", "krea2_style_reference", "krea2_text_encoder",
    ),
    "Qwen-Image": (
        "qwen_image_denoise", "qwen_image_i2l", "qwen_image_l2i", "qwen_image_lora_collection_loader",
        "qwen_image_lora_loader", "qwen_image_model_loader", "qwen_image_text_encoder",
    ),
    "Wan": (
        "wan_denoise", "wan_i2l", "wan_i2v_ideal_dimensions", "wan_l2i", "wan_l2v", "wan_lora_collection_loader",
        "wan_lora_loader", "wan_model_loader", "wan_ref_image_encoder", "wan_text_encoder", "wan_ti2v_ideal_dimensions",
        "wan_video_denoise",
    ),
}  # fmt: skip

TYPES = _TYPES | {node_type: _family(name) for name, types in _FAMILIES.items() for node_type in types}


def remedy(node_type: str) -> str | None:
    """Return advice for an unsupported node type of InvokeAI's, or None if the type is not in the table."""
    if (unsupported := TYPES.get(node_type)) is None:
        return None
    alternative = f"; {unsupported.alternative}" if unsupported.alternative else ""
    return f"It needs {unsupported.requirement}, which this version does not support yet{alternative}."
