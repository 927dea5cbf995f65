"""A corpus of model files and folders in the layouts in which they are published, with the record that each must get.

`CASES` has at least one case for each record class that has files. Files have headers of published sizes and holes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.models.conftest import Make
from tests.models.identify import component_layouts as parts
from tests.models.identify import layouts, lora_layouts
from tests.models.identify.folders import FOLDERS
from tests.models.identify.in_memory import FileInMemory
from tests.models.identify.layouts import Shapes, prefixed
from tests.models.identify.lora_layouts import lora

OMI = {"modelspec.sai_model_spec": "1.0.0", "ot_branch": "omi_format 1.0"}


@dataclass(frozen=True)
class Case:
    """A model: the class of its record, how to write it, and fields of the record."""

    id: str
    expected: str
    write: Callable[[Make], Path]
    fields: dict[str, Any] = field(default_factory=dict)
    in_memory: FileInMemory | None = None
    """The same file without writing it; None for folders and pickles."""


def file(expected: str, label: str, shapes: Shapes, name: str = "model", metadata: Any = None, **fields: Any) -> Case:
    write = lambda make: make.header(f"{name}.safetensors", shapes, **(metadata or {}))  # noqa: E731
    copy = FileInMemory(shapes, f"{name}.safetensors", metadata)
    return Case(f"{expected}-{label}", expected, write, fields, copy)


def gguf(expected: str, label: str, shapes: Shapes, name: str = "model", **fields: Any) -> Case:
    write = lambda make: make.gguf(f"{name}.gguf", shapes)  # noqa: E731
    return Case(f"{expected}-{label}", expected, write, fields, FileInMemory(shapes, f"{name}.gguf"))


def folder(expected: str, label: str, files: dict[str, Any], **fields: Any) -> Case:
    """Return a folder: JSON files by name, and weights (shapes) by names that end with .safetensors or .bin."""

    def write(make: Make) -> Path:
        for name, content in files.items():
            if name.endswith(".safetensors"):
                make.header(f"model/{name}", content)
            elif name.endswith(".bin"):
                make.pickle(f"model/{name}", content)
            elif name.endswith(".txt"):
                (make.folder / "model" / name).write_text(content)
            else:
                make.json(f"model/{name}", content)
        return make.folder / "model"

    return Case(f"{expected}-{label}", expected, write, fields)


def nf4(shapes: Shapes) -> Shapes:
    """Quantize every linear layer as bitsandbytes does."""
    result: Shapes = {}
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) == 2:
            count = math.prod(shape)
            result |= {name: (count // 2, 1), f"{name}.absmax": (count // 64,), f"{name}.quant_map": (16,)}
            result[f"{name}.quant_state.bitsandbytes__nf4"] = (80,)
        else:
            result[name] = shape
    return result


def sdnq(shapes: Shapes) -> Shapes:
    """Quantize the linear layers of the blocks to 8 bits as SDNQ does."""
    scales = {
        name.removesuffix("weight") + "scale": (shape[0], 1)
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and ("blocks" in name or "layers" in name)
    }
    return shapes | scales


def small(shapes: Shapes) -> Shapes:
    """Return the smaller tensors: pickles have no holes."""
    return {name: shape for name, shape in shapes.items() if math.prod(shape) < 2_000_000}


BUNDLE = "model.diffusion_model."
DEV, SCHNELL, FILL = layouts.flux(), layouts.flux(guidance=False), layouts.flux(channels=384)
KLEIN_4B, KLEIN_9B = layouts.flux2(), layouts.flux2(4096, 12288)
FLUX2_DEV = layouts.flux2(6144, 15360, guidance=True)
QWEN, Z_IMAGE, KREA, WAN, ANIMA = (
    layouts.qwen_image(),
    layouts.z_image(),
    layouts.krea2(),
    layouts.wan(),
    layouts.anima(),
)
QWEN3_4B = parts.language_model(2560, 36, 4096, norm=True)
MISTRAL = parts.language_model(5120, 40, 4096, norm=False)


def bundle(shapes: Shapes, latents: int = 16) -> Shapes:
    """Return a checkpoint of ComfyUI: the denoiser, the text encoders and the autoencoder in one file."""
    text = prefixed("text_encoders.clip_l.transformer.", parts.clip_text())
    return prefixed(BUNDLE, shapes) | prefixed("vae.", parts.vae(latents, quant=False)) | text


def _sd(context: int, base: str) -> list[Case]:
    main = f"Main_Checkpoint_{base}_Config"
    prediction = "v_prediction" if base == "SD2" else "epsilon"
    checkpoint = parts.sd_checkpoint(context)
    return [
        file(main, "whole", checkpoint, variant="normal", prediction_type=prediction),
        file(main, "inpaint", parts.sd_checkpoint(context, 9), variant="inpaint"),
        file(main, "pruned", prefixed(BUNDLE, parts.unet(context)), variant="normal"),
        file(main, "without-first-attention", layouts.without(checkpoint, f"{BUNDLE}input_blocks.2.", f"{BUNDLE}input_blocks.4.")),
        Case(f"{main}-pickle", main, lambda make: make.pickle("model.ckpt", {"state_dict": small(checkpoint)}), {}),
    ]  # fmt: skip


def _unet_adapters(context: int, base: str) -> list[Case]:
    native, library = parts.unet(context), parts.unet_library(context)
    lycoris, lora_folder = f"LoRA_LyCORIS_{base}_Config", f"LoRA_Diffusers_{base}_Config"
    net = f"ControlNet_Checkpoint_{base}_Config"
    tables = [("kohya", ""), ("kohya", "loha"), ("kohya", "lokr"), ("kohya", "lokr_split"), ("unet", ""), ("unet", "diffusers"), ("unet", "named")]  # fmt: skip
    token = {768: 768, 1024: 1024, 2048: 1280}[context]
    embedding = {"clip_l": (4, 768), "clip_g": (4, 1280)} if context == 2048 else {"emb_params": (4, token)}
    return [
        *(file(lycoris, f"{names}-{kind or 'low-rank'}", lora(library, names, factors=kind)) for names, kind in tables),
        file(lycoris, "original-names", lora(native, "kohya", "attn")),
        folder(lora_folder, "unet", {"pytorch_lora_weights.safetensors": lora(library, "unet")}),
        folder(lora_folder, "pickle", {"pytorch_lora_weights.bin": lora(library, "unet", "attn2.to_v")}),
        file(net, "original", parts.controlnet(context)),
        file(net, "without-prefix", parts.controlnet(context, "")),
        file(net, "library", parts.controlnet_library(context), "canny"),
        file(f"IPAdapter_Checkpoint_{base}_Config", "file", parts.ip_adapter(context)),
        folder(
            f"IPAdapter_InvokeAI_{base}_Config",
            "folder",
            {
                "ip_adapter.bin": {"ip_adapter": {"1.to_k_ip.weight": (9, context)}, "image_proj": {"x": (1,)}},
                "image_encoder.txt": "InvokeAI/encoder\n",
            },
            image_encoder_model_id="InvokeAI/encoder",
        ),
        file(f"TI_File_{base}_Config", "vectors", embedding),
        folder(f"TI_Folder_{base}_Config", "folder", {"learned_embeds.bin": {"<cat>": (token,)}}),
    ]


STABLE_DIFFUSION = [
    *_sd(768, "SD1"), *_sd(1024, "SD2"), *_sd(2048, "SDXL"), *_sd(1280, "SDXLRefiner"),
    *_unet_adapters(768, "SD1"), *_unet_adapters(1024, "SD2"), *_unet_adapters(2048, "SDXL"),
    file("Main_Checkpoint_SD2_Config", "depth", parts.sd_checkpoint(1024, 5), variant="depth"),
    file("LoRA_LyCORIS_SD1_Config", "text-encoder", lora_layouts.text_encoder_lora("lora_te", 768)),
    file("LoRA_LyCORIS_SDXL_Config", "text-encoders", lora_layouts.text_encoder_lora("lora_te1", 768) | lora_layouts.text_encoder_lora("lora_te2", 1280)),
    file("LoRA_LyCORIS_SDXL_Config", "without-cross-attention", lora(parts.unet_library(2048, 3), "kohya", "ff.net")),
    file("LoRA_OMI_SDXL_Config", "metadata", lora(parts.unet_library(2048), "kohya"), metadata=OMI | {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}),
    file("TI_File_SD1_Config", "one-vector", {"<cat>": (768,)}),
    file("VAE_Checkpoint_SD1_Config", "original", parts.vae()),
    file("VAE_Checkpoint_SD1_Config", "cut-out-of-a-checkpoint", prefixed("first_stage_model.", parts.vae())),
    file("VAE_Checkpoint_SD2_Config", "by-name", parts.vae(), "vae_sd2"),
    file("VAE_Checkpoint_SDXL_Config", "by-name", prefixed("first_stage_model.", parts.vae()), "sdxl_vae"),
]  # fmt: skip


def _flux_loras(expected: str, native: Shapes, library: Shapes, **fields: Any) -> list[Case]:
    names = [("kohya", ""), ("comfy", ""), ("comfy", "lokr"), ("comfy", "loha"), ("peft", ""), ("peft", "lokr_split")]
    named = [("diffusers", ""), ("onetrainer", ""), ("lycoris", ""), ("peft", ""), ("peft", "named")]
    return [
        *(file(expected, f"{n}-{k or 'default'}", lora(native, n, "blocks", factors=k), **fields) for n, k in names),
        file(expected, "single-blocks-only", lora(native, "kohya", "single_blocks"), **fields),
        file(expected, "mlp-only", lora(native, "comfy", "_mlp."), **fields),
        *(file(expected, f"library-{n}-{k or 'default'}", lora(library, n, factors=k), **fields) for n, k in named),
    ]


FLUX = [
    file("Main_Checkpoint_FLUX_Config", "dev", DEV, variant="dev"),
    file("Main_Checkpoint_FLUX_Config", "schnell", SCHNELL, variant="schnell"),
    file("Main_Checkpoint_FLUX_Config", "fill", FILL, variant="dev_fill"),
    file("Main_Checkpoint_FLUX_Config", "canny", layouts.flux(channels=128), "flux1-canny-dev", variant="dev"),
    file("Main_Checkpoint_FLUX_Config", "prefix", prefixed(BUNDLE, DEV), variant="dev"),
    file("Main_Checkpoint_FLUX_Config", "bundle", bundle(SCHNELL), variant="schnell"),
    file("Main_Checkpoint_FLUX_Config", "tiny", layouts.flux(256), variant="dev"),
    file("Main_BnBNF4_FLUX_Config", "dev", nf4(DEV), variant="dev"),
    file("Main_BnBNF4_FLUX_Config", "canny", nf4(layouts.flux(channels=128)), variant="dev"),
    file("Main_BnBNF4_FLUX_Config", "fill-bundle", prefixed(BUNDLE, nf4(FILL)), variant="dev_fill"),
    gguf("Main_GGUF_FLUX_Config", "dev", DEV, variant="dev"),
    gguf("Main_GGUF_FLUX_Config", "flat-input", DEV | {"img_in.weight": (3072 * 64,)}, variant="dev"),
    file("Main_SDNQ_FLUX_Config", "schnell", sdnq(SCHNELL), variant="schnell"),
    file("VAE_Checkpoint_FLUX_Config", "ae", parts.vae(16, quant=False)),
    file("ControlNet_Checkpoint_FLUX_Config", "xlabs", layouts.flux_controlnet_xlabs()),
    file("ControlNet_Checkpoint_FLUX_Config", "instantx", layouts.flux_controlnet_instantx()),
    file("ControlNet_Checkpoint_FLUX_Config", "instantx-original", layouts.flux_controlnet_instantx(library=False)),
    file("ControlLoRA_LyCORIS_FLUX_Config", "canny", layouts.flux_control_lora(), "canny-lora"),
    *_flux_loras("LoRA_LyCORIS_FLUX_Config", DEV, layouts.flux_library()),
    file("LoRA_LyCORIS_FLUX_Config", "xlabs", lora_layouts.xlabs()),
    file("LoRA_LyCORIS_FLUX_Config", "tiny", lora(layouts.flux(256), "kohya", "blocks")),
    file("LoRA_LyCORIS_FLUX_Config", "attention-only", lora(DEV, "kohya", "img_attn")),
    file("LoRA_LyCORIS_FLUX_Config", "tools", lora(layouts.flux(channels=64), "comfy")),
    folder("LoRA_Diffusers_FLUX_Config", "folder", {"pytorch_lora_weights.safetensors": lora(layouts.flux_library(), "diffusers")}),
    file("LoRA_OMI_FLUX_Config", "metadata", lora(DEV, "kohya", "blocks"), metadata=OMI | {"modelspec.architecture": "Flux.1-dev/lora"}),
    file("IPAdapter_Checkpoint_FLUX_Config", "xlabs", parts.ip_adapter_flux()),
    file("FLUXRedux_Checkpoint_Config", "redux", layouts.linear("redux_up", 12288, 1152, bias=True) | layouts.linear("redux_down", 4096, 12288, bias=True)),
    file("Main_Checkpoint_Flux2_Config", "klein-4b", KLEIN_4B, variant="klein_4b"),
    file("Main_Checkpoint_Flux2_Config", "klein-9b-base", KLEIN_9B, "flux-2-klein-base-9b", variant="klein_9b_base"),
    file("Main_Checkpoint_Flux2_Config", "dev-bundle", bundle(FLUX2_DEV), variant="dev"),
    gguf("Main_GGUF_Flux2_Config", "klein-9b", KLEIN_9B, variant="klein_9b"),
    file("Main_SDNQ_Flux2_Config", "klein-4b", sdnq(KLEIN_4B), variant="klein_4b"),
    file("VAE_Checkpoint_Flux2_Config", "vae", parts.vae_flux2()),
    *_flux_loras("LoRA_LyCORIS_Flux2_Config", KLEIN_4B, layouts.flux2_library(3072), variant="klein_4b"),
    file("LoRA_LyCORIS_Flux2_Config", "klein-9b", lora(KLEIN_9B, "kohya", "blocks"), variant="klein_9b"),
    file("LoRA_LyCORIS_Flux2_Config", "dev-lokr", lora(FLUX2_DEV, "comfy", "blocks", factors="lokr"), variant="dev"),
    file("LoRA_LyCORIS_Flux2_Config", "dev-attention-only", lora(layouts.flux2_library(6144), "diffusers", "attn.to_q", "add_q_proj"), variant="dev"),
    folder("LoRA_Diffusers_Flux2_Config", "folder", {"pytorch_lora_weights.safetensors": lora(layouts.flux2_library(4096), "diffusers")}, variant="klein_9b"),
]  # fmt: skip


def _loras(expected: str, native: Shapes, *names: str, words: tuple[str, ...] = (), **fields: Any) -> list[Case]:
    return [
        case
        for n in names
        for case in (
            file(expected, f"{n}-all", lora(native, n, *words), **fields),
            file(expected, f"{n}-lokr", lora(native, n, *words, factors="lokr"), **fields),
        )
    ]


OTHER_TRANSFORMERS = [
    file("Main_Checkpoint_ZImage_Config", "turbo", Z_IMAGE, variant="turbo"),
    file("Main_Checkpoint_ZImage_Config", "bundle", bundle(Z_IMAGE), variant="turbo"),
    gguf("Main_GGUF_ZImage_Config", "turbo", Z_IMAGE, variant="turbo"),
    file("Main_SDNQ_ZImage_Config", "turbo", sdnq(Z_IMAGE), variant="turbo"),
    file("ControlNet_Checkpoint_ZImage_Config", "v1", layouts.z_image_controlnet(16)),
    file("ControlNet_Checkpoint_ZImage_Config", "v2", layouts.z_image_controlnet(33)),
    *_loras("LoRA_LyCORIS_ZImage_Config", layouts.z_image_library(), "kohya", "comfy", "diffusers", "peft"),
    file("LoRA_LyCORIS_ZImage_Config", "original-names", lora(Z_IMAGE, "comfy", "layers", "refiner")),
    folder("LoRA_Diffusers_ZImage_Config", "folder", {"pytorch_lora_weights.safetensors": lora(layouts.z_image_library(), "diffusers")}),
    file("Main_Checkpoint_QwenImage_Config", "generate", QWEN, variant="generate"),
    file("Main_Checkpoint_QwenImage_Config", "edit", prefixed(BUNDLE, QWEN), "qwen_image_edit_2509", variant="edit"),
    gguf("Main_GGUF_QwenImage_Config", "edit", QWEN | {"__index_timestep_zero__": ()}, variant="edit"),
    file("VAE_Checkpoint_QwenImage_Config", "vae", parts.vae_video(), "qwen_image_vae"),
    *_loras("LoRA_LyCORIS_QwenImage_Config", QWEN, "kohya", "bare", "diffusers", "comfy", words=("transformer_blocks",)),
    file("LoRA_LyCORIS_QwenImage_Config", "attention-only", lora(QWEN, "diffusers", ".attn.")),
    file("Main_Checkpoint_Krea2_Config", "turbo", KREA, variant="krea2_turbo"),
    file("Main_Checkpoint_Krea2_Config", "library-raw", layouts.krea2_library(), "krea2-raw", variant="krea2_base"),
    gguf("Main_GGUF_Krea2_Config", "turbo", KREA, variant="krea2_turbo"),
    *_loras("LoRA_LyCORIS_Krea2_Config", KREA, "kohya", "comfy", "peft", words=("blocks",)),
    file("LoRA_LyCORIS_Krea2_Config", "blocks-only", lora(KREA, "comfy", "blocks.0.attn")),
    *_loras("LoRA_LyCORIS_Krea2_Config", layouts.krea2_library(), "diffusers", words=("blocks",)),
    file("Main_Checkpoint_Wan_Config", "t2v-high", WAN, "wan2.2_t2v_high_noise_14B", variant="t2v_a14b", expert="high"),
    file("Main_Checkpoint_Wan_Config", "i2v", prefixed(BUNDLE, layouts.wan(5120, 36)), variant="i2v_a14b", expert="none"),
    file("Main_Checkpoint_Wan_Config", "library", layouts.wan_library(), variant="t2v_a14b"),
    file("Main_Checkpoint_Wan_Config", "5b", layouts.wan(3072, 48), variant="ti2v_5b"),
    gguf("Main_GGUF_Wan_Config", "low", WAN, "wan2.2-low-noise", variant="t2v_a14b", expert="low"),
    file("VAE_Checkpoint_Wan_Config", "library", parts.vae_video(), "wan_2.1_vae", latent_channels=16),
    file("VAE_Checkpoint_Wan_Config", "native", parts.vae_video_native(), "wan_2.1_vae", latent_channels=16),
    file("VAE_Checkpoint_Wan_Config", "5b", parts.vae_video(48), latent_channels=48),
    *_loras("LoRA_LyCORIS_Wan_Config", WAN, "kohya", "comfy", "bare", words=("blocks",), variant="a14b", expert=None),
    *_loras("LoRA_LyCORIS_Wan_Config", layouts.wan_library(3072), "diffusers", words=("blocks",), variant="5b"),
    file("Main_Checkpoint_Anima_Config", "net", prefixed("net.", ANIMA)),
    file("Main_Checkpoint_Anima_Config", "bundle", prefixed(BUNDLE, ANIMA)),
    file("VAE_Checkpoint_Anima_Config", "native", parts.vae_video_native(), "vae"),
    file("ControlNet_Checkpoint_Anima_Config", "image", layouts.anima_lllite(), cond_in_channels=3),
    file("ControlNet_Checkpoint_Anima_Config", "mask", layouts.anima_lllite(4), cond_in_channels=4),
    *_loras("LoRA_LyCORIS_Anima_Config", ANIMA, "kohya", "comfy", "peft", words=("blocks",)),
    file("PiDDecoder_Checkpoint_SDXL_Config", "pid", parts.pid(4), variant="res2k_sr4x"),
    file("PiDDecoder_Checkpoint_FLUX_Config", "pid", prefixed("net.", parts.pid(16)), "pid_flux", variant="res2k_sr4x"),
    file("PiDDecoder_Checkpoint_SD3_Config", "pid", parts.pid(16), "pid_sd3_2kto4k", variant="res2kto4k_sr4x"),
    file("PiDDecoder_Checkpoint_QwenImage_Config", "pid", parts.pid(16), "pid_qwen", variant="res2k_sr4x"),
    file("PiDDecoder_Checkpoint_Flux2_Config", "pid", parts.pid(128), variant="res2k_sr4x"),
]  # fmt: skip

ENCODERS = [
    file("Qwen3Encoder_Checkpoint_Config", "4b", QWEN3_4B, variant="qwen3_4b"),
    file("Qwen3Encoder_Checkpoint_Config", "06b", parts.language_model(1024, 28, 2048, norm=True), variant="qwen3_06b"),
    file("Qwen3Encoder_SDNQ_Config", "8b", sdnq(parts.language_model(4096, 36, 4096, norm=True)), variant="qwen3_8b"),
    gguf("Qwen3Encoder_GGUF_Config", "8b", parts.language_gguf(4096, 36, 4096, norm=True), variant="qwen3_8b"),
    file("Qwen3VLEncoder_Checkpoint_Config", "4b", parts.vision_tower() | QWEN3_4B),
    file("QwenVLEncoder_Checkpoint_Config", "7b", parts.vision_tower() | parts.language_model(3584, 28, 3584, norm=False, bias=True)),
    file("MistralEncoder_Checkpoint_Config", "24b", MISTRAL, variant="mistral3_24b"),
    file("MistralEncoder_Checkpoint_Config", "cow", parts.language_model(5120, 30, 4096, norm=False, prefix="language_model.model."), variant="cow_mistral3_small"),
    gguf("MistralEncoder_GGUF_Config", "24b", parts.language_gguf(5120, 40, 4096, norm=False), variant="mistral3_24b"),
    gguf("Gemma2Encoder_GGUF_Config", "2b", parts.language_gguf(2304, 26, 2048, norm=False, after=True)),
    gguf("T5Encoder_GGUF_Config", "xxl", parts.t5_gguf()),
    file("T5Encoder_T5Encoder_Config", "fp16", parts.t5(), "t5xxl_fp16"),
    file("T5Encoder_T5Encoder_Config", "fp8", parts.t5() | {"scaled_fp8": (0,), "encoder.block.0.layer.0.SelfAttention.q.scale_weight": ()}, "t5xxl_fp8_e4m3fn_scaled"),
    file("T5Encoder_BnBLLMint8_Config", "file", parts.t5_int8(), "t5_llm_int8"),
    file("Spandrel_Checkpoint_Config", "esrgan", layouts.conv("model.0", 64, 3) | layouts.conv("model.1.sub.0.RDB1.conv1.0", 32, 64)),
    Case("Spandrel_Checkpoint_Config-pickle", "Spandrel_Checkpoint_Config", lambda make: make.pickle("x4.pth", {"params_ema": layouts.conv("conv_first", 64, 3) | layouts.conv("body.0.rdb1.conv1", 32, 64)})),
]  # fmt: skip

CASES = [*STABLE_DIFFUSION, *FLUX, *OTHER_TRANSFORMERS, *ENCODERS, *(folder(*row[:3], **row[3]) for row in FOLDERS)]

UNSUPPORTED = [
    ("Chroma", layouts.chroma()),
    ("Chroma", prefixed(BUNDLE, layouts.chroma())),
    ("Chroma", lora(layouts.chroma(), "comfy")),
    ("ControlNet-LLLite of Stable Diffusion XL", layouts.sdxl_lllite()),
    ("ControlNet of Anima in an old format", {"lllite_modules.0.down.weight": (64, 2048)}),
    ("Stable Diffusion 3 in one file", layouts.sd3()),
    ("Stable Diffusion 3 in one file", bundle(layouts.sd3())),
    ("LoRA of Stable Diffusion 3", lora(layouts.sd3(), "kohya", "joint_blocks")),
    ("LoRA of Stable Diffusion 3", lora(layouts.sd3_library(), "diffusers")),
    ("LoRA of Stable Diffusion 3", lora(layouts.sd3_library(1536), "diffusers", "attn.to_q")),
    ("LoRA of Stable Diffusion 3", lora(layouts.sd3_library(1536), "onetrainer")),
    ("ControlNet of Stable Diffusion 3", layouts.sd3_library(1536) | {"controlnet_blocks.0.weight": (1536, 1536), "pos_embed_input.proj.weight": (1536, 17, 2, 2)}),
    ("ControlNet of Qwen-Image", QWEN | layouts.linear("controlnet_x_embedder", 3072, 64) | layouts.linear("controlnet_blocks.0", 3072, 3072)),
    ("Lumina Image 2", layouts.z_image(2304, 2304, tokens=False)),
    ("Lumina Image 2", lora(layouts.z_image(2304, 2304, tokens=False), "comfy", "layers")),
    ("OmniGen 2", {"time_caption_embed.caption_embedder.0.weight": (2048,), "context_refiner.0.attn.to_q.weight": (2520, 2520)}),
    ("UMT5 encoder in one file", parts.t5_gguf(umt5=True)),
    ("UMT5 encoder in one file", parts.t5(umt5=True)),
    ("FLUX.2 in bitsandbytes' 4 bits in one file; use GGUF", nf4(KLEIN_4B)),
    ("FLUX.2 in bitsandbytes' 4 bits", prefixed(BUNDLE, nf4(KLEIN_9B))),
    ("Z-Image in bitsandbytes' 4 bits in one file; use GGUF", nf4(Z_IMAGE)),
    ("Wan 2.1", WAN | layouts.linear("img_emb.proj.1", 5120, 1280)),
    ("Wan 2.1", layouts.wan(1536, 16)),
    ("LoRA of HunyuanVideo", lora({"double_blocks.0.img_attn_qkv.weight": (9216, 3072), "double_blocks.0.img_mlp.fc1.weight": (12288, 3072)}, "comfy")),
]  # fmt: skip
"""Files that resemble a supported kind, with a part of the name under which they are refused."""
