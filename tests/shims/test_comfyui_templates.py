"""The node types of ComfyUI's usual templates: each is translated, or refused by its name."""

import pytest

from invokeclone.shims.comfyui.nodes import TYPES

PARTS = ("UNETLoader", "VAELoader", "CLIPTextEncode", "VAEDecode", "SaveImage")
CUSTOM = ("RandomNoise", "KSamplerSelect", "SamplerCustomAdvanced")
CHECKPOINT = ("CheckpointLoaderSimple", "CLIPTextEncode", "KSampler", "VAEDecode", "SaveImage")
FLUX = (*PARTS, "DualCLIPLoader", "FluxGuidance")
TEMPLATES = {
    "FLUX.1 dev, checkpoint": (*CHECKPOINT, "EmptySD3LatentImage", "FluxGuidance"),
    "FLUX.1 dev and schnell": (*FLUX, "EmptySD3LatentImage", "KSampler", "ConditioningZeroOut"),
    "FLUX.1 dev, samplers of parts": (*FLUX, *CUSTOM, "ModelSamplingFlux", "BasicGuider", "BasicScheduler"),
    "FLUX.1 Fill": (*FLUX, "LoadImage", "InpaintModelConditioning", "DifferentialDiffusion", "ConditioningZeroOut"),
    "FLUX.1 Fill, outpainting": (*FLUX, "ImagePadForOutpaint", "InpaintModelConditioning", "DifferentialDiffusion"),
    "FLUX.1 canny": (*FLUX, "LoadImage", "Canny", "InstructPixToPixConditioning", "PreviewImage", "KSampler"),
    "FLUX.1 depth LoRA": (*FLUX, "LoraLoaderModelOnly", "InstructPixToPixConditioning", "LoadImage", "KSampler"),
    "FLUX.1 Redux": (*FLUX, *CUSTOM, "CLIPVisionLoader", "CLIPVisionEncode", "StyleModelLoader", "StyleModelApply"),
    "FLUX.1 Kontext": (*FLUX, "FluxKontextImageScale", "ImageStitch", "LoadImageOutput", "VAEEncode", "ReferenceLatent"),
    "FLUX.1 with ControlNets": (*FLUX, "ControlNetLoader", "SetUnionControlNetType", "ControlNetApplySD3"),
    "FLUX.1 in GGUF files": ("UnetLoaderGGUF", "DualCLIPLoaderGGUF", "VAELoader", "CLIPTextEncodeFlux"),
    "Stable Diffusion 3.5": (*CHECKPOINT, "EmptySD3LatentImage"),
    "Stable Diffusion 3": (*PARTS, "TripleCLIPLoader", "ModelSamplingSD3", "ConditioningSetTimestepRange"),
    "FLUX.2": (*PARTS, *CUSTOM, "CLIPLoader", "EmptyFlux2LatentImage", "Flux2Scheduler", "BasicGuider", "ReferenceLatent"),
    "FLUX.2 klein": (*PARTS, *CUSTOM, "CLIPLoader", "CFGGuider", "Flux2Scheduler", "ImageScaleToTotalPixels"),
    "FLUX.2, edits": (*PARTS, "GetImageSize", "ImageScaleToTotalPixels", "VAEEncode", "ReferenceLatent"),
    "Z-Image": (*PARTS, "CLIPLoader", "ModelSamplingAuraFlow", "EmptySD3LatentImage", "ConditioningZeroOut", "KSampler"),
    "Z-Image with ControlNets": (*PARTS, "ModelPatchLoader", "QwenImageDiffsynthControlnet", "Canny", "GetImageSize"),
    "SDXL with its refiner": (*CHECKPOINT, "KSamplerAdvanced", "CLIPTextEncodeSDXL", "CLIPTextEncodeSDXLRefiner"),
    "LoRAs": (*CHECKPOINT, "LoraLoader", "LoraLoaderModelOnly", "CLIPSetLastLayer", "EmptyLatentImage"),
    "ControlNets": (*CHECKPOINT, "ControlNetLoader", "ControlNetApply", "ControlNetApplyAdvanced", "DiffControlNetLoader"),
    "IP-Adapters": (*CHECKPOINT, "IPAdapterUnifiedLoader", "IPAdapterModelLoader", "IPAdapter", "IPAdapterAdvanced"),
}  # fmt: skip
"""Names of templates, by what they show, and the types of their nodes."""


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_nodes_of_templates_are_translated(name: str) -> None:
    from invokeclone.shims.comfyui.nodes import unsupported

    missing = [kind for kind in TEMPLATES[name] if kind not in TYPES]
    refused = [kind for kind in TEMPLATES[name] if TYPES[kind].build.__module__ == unsupported.__name__]
    assert (missing, refused) == ([], [])
