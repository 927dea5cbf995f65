"""Node types of InvokeAI that this version does not have yet: what they need, and what could take their place."""

from typing import NamedTuple


class Absent(NamedTuple):
    """Why node types are not there, and what to do."""

    needs: str
    instead: str = ""


def _family(name: str) -> Absent:
    return Absent(name, "choose a model of another architecture")


_GRAY = Absent("a detector model", "use canny_edge_detection, content_shuffle or an image made elsewhere")
_UPSCALE = Absent("an upscaling model", "use img_resize or img_scale")

_TYPES: dict[str, Absent] = {
    "infill_lama": Absent("LaMa", "choose another infill method: patchmatch, tile, cv2 or color"),
    **dict.fromkeys(("esrgan", "spandrel_image_to_image", "spandrel_image_to_image_autoscale"), _UPSCALE),
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
    "img_nsfw": Absent("a classifier of images", "leave the node out"),
    "img_watermark": Absent("an encoder of watermarks", "leave the node out"),
    **dict.fromkeys(("grounding_dino", "segment_anything"), Absent("a segmentation model", "draw the mask")),
    **dict.fromkeys(("face_identifier", "face_mask_detection", "face_off"), Absent("a face model", "draw the mask")),
    "llava_onevision_vllm": Absent("LLaVA OneVision"),
}

_FAMILIES: dict[str, tuple[str, ...]] = {
    "Anima": ("anima_denoise", "anima_model_loader", "anima_text_encoder", "anima_i2l", "anima_l2i"),
    "CogView4": ("cogview4_denoise", "cogview4_i2l", "cogview4_l2i", "cogview4_model_loader", "cogview4_text_encoder"),
    "FLUX": (
        "flux_control_lora_loader", "flux_controlnet", "flux_denoise", "flux_denoise_meta", "flux_fill",
        "flux_ip_adapter", "flux_kontext", "flux_kontext_image_prep", "flux_lora_collection_loader", "flux_lora_loader",
        "flux_model_loader", "flux_redux", "flux_text_encoder", "flux_vae_decode", "flux_vae_encode",
    ),
    "FLUX.2": ("flux2_denoise", "flux2_klein_model_loader", "flux2_klein_text_encoder", "flux2_vae_decode", "flux2_vae_encode"),
    "Qwen-Image": ("qwen_image_denoise", "qwen_image_i2l", "qwen_image_l2i", "qwen_image_model_loader", "qwen_image_text_encoder"),
    "Stable Diffusion 3": ("sd3_denoise", "sd3_i2l", "sd3_l2i", "sd3_model_loader", "sd3_text_encoder"),
    "Wan": ("wan_denoise", "wan_i2l", "wan_l2i", "wan_model_loader", "wan_text_encoder", "wan_video_denoise"),
    "Z-Image": ("z_image_denoise", "z_image_i2l", "z_image_l2i", "z_image_model_loader", "z_image_text_encoder"),
}  # fmt: skip

TYPES = _TYPES | {node_type: _family(name) for name, types in _FAMILIES.items() for node_type in types}


def remedy(node_type: str) -> str | None:
    """Return what to do without a node type of InvokeAI's; None for one that is not InvokeAI's, as far as this knows."""
    if (absent := TYPES.get(node_type)) is None:
        return None
    instead = f"; {absent.instead}" if absent.instead else ""
    return f"It needs {absent.needs}, which this version does not have yet{instead}."
