"""What is put on Stable Diffusion XL, alone and together, against diffusers' own pipelines with the same tiny weights."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.components.clip.vision import pixels
from invokeclone.engine.schedules import discrete
from invokeclone.families.stable_diffusion import ip_adapter, pipeline
from invokeclone.families.stable_diffusion.attention import CrossAttention, cross_attention
from invokeclone.families.stable_diffusion.conditioning import SDXLConditioningInfo, TextConditioning
from invokeclone.families.stable_diffusion.control_image import ControlImage
from invokeclone.families.stable_diffusion.controlnet import ControlNet
from invokeclone.families.stable_diffusion.denoiser import UNetDenoiser
from invokeclone.families.stable_diffusion.ip_adapter import ImagePrompt
from invokeclone.families.stable_diffusion.nodes.ip_adapter import _LAYERS_XL
from invokeclone.families.stable_diffusion.pipeline import DenoiseTask
from invokeclone.families.stable_diffusion.t2i_adapter import T2IAdapter
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from tests.families.stable_diffusion.test_t2i_adapter import image_of, pixels_of
from tests.tiny_models import SCHEDULER, make_unet, make_vae, noise_of

CPU = torch.device("cpu")
EULER = {**SCHEDULER, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
TEXT, POOLED, SIDE = 24, 10, 64
LATENTS = (1, 4, SIDE // 8, SIDE // 8)
CHANNELS = [8, 16, 16]
HIDDEN, EMBEDS = 16, 20
NETWORK = {
    "block_out_channels": CHANNELS,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 2,
    "cross_attention_dim": TEXT,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": POOLED + 6 * 4,
}
"""SDXL's blocks: two attentions in each of the down blocks, three in the up blocks."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def unet() -> Any:
    return make_unet(**NETWORK, up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"])


def info_of(seed: int) -> SDXLConditioningInfo:
    sizes = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]])
    return SDXLConditioningInfo(noise_of(seed, 1, 7, TEXT), noise_of(seed + 1, 1, POOLED), sizes)


POSITIVE, NEGATIVE = info_of(21), info_of(31)


def task(**changes: Any) -> DenoiseTask:
    sides = (TextConditioning.of_prompts([(POSITIVE, None)]), negative())
    return DenoiseTask(*sides, "euler", EULER, 4, **{"cfg_scale": 5.0, "noise": noise_of(1, *LATENTS), **changes})


def negative() -> TextConditioning:
    return TextConditioning.of_prompts([(NEGATIVE, None)], positive=False)


def denoise(unet: Any, **changes: Any) -> torch.Tensor:
    return pipeline.denoise(unet, task(**changes), CPU, [].append)


def reference(name: str, unet: Any, **parts: Any) -> Any:
    """Return one of diffusers' pipelines of SDXL with a copy of `unet`, without text encoders."""
    import diffusers

    none = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    scheduler = discrete.create("euler", EULER)
    diffusers_pipeline = getattr(diffusers, name)(
        vae=make_vae(), unet=copy.deepcopy(unet), scheduler=scheduler, **none, **parts
    )
    diffusers_pipeline.set_progress_bar_config(disable=True)
    diffusers_pipeline.watermark = None
    return diffusers_pipeline


def run(diffusers_pipeline: Any, **inputs: Any) -> torch.Tensor:
    """Run a pipeline of diffusers on what `task` is given."""
    sampler = discrete.create("euler", EULER)
    sampler.set_timesteps(4)
    noise = noise_of(1, *LATENTS)
    begun = sampler.add_noise(torch.zeros_like(noise), noise, sampler.timesteps[:1]) / sampler.init_noise_sigma
    arguments = {"latents": begun, "width": SIDE, "height": SIDE, **inputs}
    result: torch.Tensor = diffusers_pipeline(
        prompt_embeds=POSITIVE.embeds,
        pooled_prompt_embeds=POSITIVE.pooled_embeds,
        negative_prompt_embeds=NEGATIVE.embeds,
        negative_pooled_prompt_embeds=NEGATIVE.pooled_embeds,
        guidance_scale=5.0,
        num_inference_steps=4,
        output_type="latent",
        **{name: value for name, value in arguments.items() if value is not None},
    ).images
    return result


def make_net(seed: int) -> Any:
    from diffusers.models.controlnets.controlnet import ControlNetModel

    torch.manual_seed(seed)
    net = ControlNetModel(**NETWORK, conditioning_embedding_out_channels=(4, 4, 8, 8)).eval()
    for name, weight in net.named_parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.3)
        if name.startswith("controlnet_cond_embedding"):
            weight.data *= 2  # so that the image shows in the latents
    return net


@pytest.fixture(scope="module")
def nets() -> list[Any]:
    return [make_net(0), make_net(1)]


@pytest.fixture(scope="module")
def adapters() -> list[Any]:
    from diffusers.models.adapter import T2IAdapter as Net

    torch.manual_seed(2)
    sizes = {"channels": [*CHANNELS, CHANNELS[-1]], "num_res_blocks": 1, "downscale_factor": 16}
    return [Net(**sizes, adapter_type="full_adapter_xl").eval() for _ in range(2)]


def controlnets(nets: list[Any], mode: Any = "balanced") -> list[ControlNet]:
    return [
        ControlNet(net, ControlImage(image_of(seed, SIDE, SIDE)), weight=0.8 - seed / 4, mode=mode)
        for seed, net in enumerate(nets)
    ]


CONTROLLED = {
    "image": [image_of(0, SIDE, SIDE), image_of(1, SIDE, SIDE)],
    "controlnet_conditioning_scale": [0.8, 0.55],
    "width": None,
    "height": None,
}


@pytest.mark.parametrize(("mode", "guess"), [("balanced", False), ("more_control", True)])
def test_two_controlnets(mode: str, guess: bool, unet: Any, nets: list[Any]):
    diffusers_pipeline = reference("StableDiffusionXLControlNetPipeline", unet, controlnet=nets, add_watermarker=False)
    expected = run(diffusers_pipeline, guess_mode=guess, **CONTROLLED)
    latents = denoise(unet, controls=controlnets(nets, mode))
    assert torch.allclose(latents, expected, atol=1e-4)
    assert not torch.allclose(latents, denoise(unet, controls=controlnets(nets[:1], mode)), atol=1e-2)
    swapped = controlnets(nets, mode)
    swapped[0].image, swapped[1].image = swapped[1].image, swapped[0].image
    assert not torch.allclose(latents, denoise(unet, controls=swapped), atol=1e-2)


def test_two_t2i_adapters(unet: Any, adapters: list[Any]):
    """InvokeAI hands the adapters of SDXL their images in the order BGR."""
    from diffusers.models.adapter import MultiAdapter

    images = [image_of(seed, SIDE, SIDE) for seed in range(2)]
    diffusers_pipeline = reference("StableDiffusionXLAdapterPipeline", unet, adapter=MultiAdapter(adapters))
    reverse = [pixels_of(image).flip(1) for image in images]
    expected = run(diffusers_pipeline, image=reverse, adapter_conditioning_scale=[0.7, 0.4])
    controls = [
        T2IAdapter(net, BaseModelType.StableDiffusionXL, ControlImage(image), weight=weight)
        for net, image, weight in zip(adapters, images, (0.7, 0.4), strict=True)
    ]
    latents = denoise(unet, controls=controls)
    assert torch.allclose(latents, expected, atol=1e-4)
    assert not torch.allclose(latents, denoise(unet, controls=controls[:1]), atol=1e-2)


# Image prompts

IMAGES = [image_of(5, 60, 40), image_of(6, 30, 90)]


@pytest.fixture(scope="module")
def encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, patch_size=56,
        projection_dim=EMBEDS,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def projection_of(kind: str) -> dict[str, torch.Tensor]:
    """Return an image projection's tensors in the published layout."""
    if kind == "linear":
        shapes = {"proj.weight": (4 * TEXT, EMBEDS), "proj.bias": (4 * TEXT,), "norm.weight": TEXT, "norm.bias": TEXT}
    else:
        inner = 128
        shapes = {
            "latents": (1, 5, inner), "proj_in.weight": (inner, HIDDEN), "proj_in.bias": inner,
            "proj_out.weight": (TEXT, inner), "proj_out.bias": TEXT, "norm_out.weight": TEXT, "norm_out.bias": TEXT,
        }  # fmt: skip
        for layer in range(4):
            norms = {f"{layer}.0.{norm}.{part}": inner for norm in ("norm1", "norm2") for part in ("weight", "bias")}
            matrices = {
                f"{layer}.0.to_q.weight": (inner, inner), f"{layer}.0.to_kv.weight": (2 * inner, inner),
                f"{layer}.0.to_out.weight": (inner, inner), f"{layer}.1.0.weight": inner, f"{layer}.1.0.bias": inner,
                f"{layer}.1.1.weight": (4 * inner, inner), f"{layer}.1.3.weight": (inner, 4 * inner),
            }  # fmt: skip
            shapes |= {f"layers.{name}": shape for name, shape in (norms | matrices).items()}
    listed = {name: shape if isinstance(shape, tuple) else (shape,) for name, shape in shapes.items()}
    return {
        name: noise_of(number, *shape) * (0.1 if len(shape) > 1 else 1.0)
        for number, (name, shape) in enumerate(listed.items())
    }


def adapter_file(unet: Any, kind: str, first: int) -> dict[str, torch.Tensor]:
    """Return the tensors of an IP-Adapter for `unet`; `first`: the seed of the first."""
    result = {f"image_proj.{name}": value for name, value in projection_of(kind).items()}
    for number, name in enumerate(unet.attn_processors):
        if ".attn2." in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            result[f"ip_adapter.{number}.to_k_ip.weight"] = noise_of(first + number, width, TEXT)
            result[f"ip_adapter.{number}.to_v_ip.weight"] = noise_of(first + 200 + number, width, TEXT)
    return result


@pytest.fixture(scope="module")
def files(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    return {kind: adapter_file(unet, kind, first) for first, kind in ((1000, "linear"), (2000, "plus"))}


def nest(flat: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    return {
        part: {name.removeprefix(f"{part}."): value for name, value in flat.items() if name.startswith(f"{part}.")}
        for part in ("image_proj", "ip_adapter")
    }


def prompts_of(
    files: dict[str, dict[str, torch.Tensor]], kinds: list[str], encoder: Any, folder: Path, **changes: Any
) -> list[ImagePrompt]:
    """Return an image prompt of each kind: the first has both images, the second has one."""
    result = []
    for number, kind in enumerate(kinds):
        save_file(files[kind], folder / f"{kind}.safetensors")
        adapter = ip_adapter.load(folder / f"{kind}.safetensors", torch.float32)
        images = IMAGES[: 2 - number]
        result.append(ImagePrompt(*ip_adapter.encode(adapter, encoder, images, CPU), weight=0.7, **changes))
    return result


def with_image_prompts(
    name: str, unet: Any, files: Any, kinds: list[str], encoder: Any, scale: Any = 0.7, **parts: Any
) -> Any:
    diffusers_pipeline = reference(
        name, unet, image_encoder=encoder, feature_extractor=None, add_watermarker=False, **parts
    )
    none = [None] * len(kinds)
    diffusers_pipeline.load_ip_adapter([nest(files[kind]) for kind in kinds], none, none, low_cpu_mem_usage=False)
    diffusers_pipeline.set_ip_adapter_scale([scale] * len(kinds))
    return diffusers_pipeline


def images_for(kinds: list[str]) -> dict[str, Any]:
    return {"ip_adapter_image": [pixels(IMAGES[: 2 - number]) for number in range(len(kinds))]}


@pytest.mark.parametrize("kinds", [["linear"], ["plus"], ["plus", "linear"]])
def test_image_prompts(kinds: list[str], unet: Any, files: Any, encoder: Any, tmp_path: Path):
    diffusers_pipeline = with_image_prompts("StableDiffusionXLPipeline", unet, files, kinds, encoder)
    expected = run(diffusers_pipeline, **images_for(kinds))
    latents = denoise(unet, image_prompts=prompts_of(files, kinds, encoder, tmp_path))
    assert torch.allclose(latents, expected, atol=1e-4)
    assert not torch.allclose(latents, denoise(unet), atol=1e-2)


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        ("style", {"up": {"block_0": [0.0, 0.7, 0.0]}}),
        ("composition", {"down": {"block_2": [0.0, 0.7]}}),
        (
            "style_strong",
            {"up": {"block_0": 0.7, "block_1": 0.7}, "down": {"block_1": 0.7, "block_2": [0.7, 0.0]}},
        ),
    ],
)
def test_methods(method: str, scale: Any, unet: Any, files: Any, encoder: Any, tmp_path: Path):
    """The layers of a method, as diffusers' settings by block name them (InstantStyle, arXiv 2404.02733)."""
    diffusers_pipeline = with_image_prompts("StableDiffusionXLPipeline", unet, files, ["linear"], encoder, scale)
    expected = run(diffusers_pipeline, **images_for(["linear"]))
    images = prompts_of(files, ["linear"], encoder, tmp_path, blocks=_LAYERS_XL[method])
    latents = denoise(unet, image_prompts=images)
    assert torch.allclose(latents, expected, atol=1e-4)
    assert not torch.allclose(latents, denoise(unet), atol=1e-3)


def test_controlnets_and_image_prompts_at_once(unet: Any, nets: list[Any], files: Any, encoder: Any, tmp_path: Path):
    kinds = ["plus", "linear"]
    diffusers_pipeline = with_image_prompts(
        "StableDiffusionXLControlNetPipeline", unet, files, kinds, encoder, controlnet=nets
    )
    expected = run(diffusers_pipeline, **CONTROLLED, **images_for(kinds))
    images = prompts_of(files, kinds, encoder, tmp_path)
    latents = denoise(unet, controls=controlnets(nets), image_prompts=images)
    assert torch.allclose(latents, expected, atol=1e-4)


def test_regions_masked_images_and_a_controlnet(unet: Any, nets: list[Any], files: Any, encoder: Any, tmp_path: Path):
    """One call of the UNet, whose attention is written out here: the left half has the second prompt, the upper half the images."""
    left, upper = torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE)
    left[:, : SIDE // 2], upper[: SIDE // 2] = 1, 1
    (image,) = prompts_of(files, ["linear"], encoder, tmp_path, mask=upper)
    conditioning = TextConditioning.of_prompts([(POSITIVE, None), (info_of(41), left[None])])
    (control,) = controlnets(nets[:1])
    attention = CrossAttention(*LATENTS[2:], torch.float32, CPU, [image])
    latents, timestep = noise_of(1, *LATENTS), torch.tensor(500)

    class ByHand:
        """The seven tokens of the first prompt hold everywhere."""

        def __init__(self, number: int) -> None:
            self.pair = image.positive[number]

        def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any):
            side = int(hidden_states.shape[1] ** 0.5)
            column = torch.arange(side).repeat(side)
            row = torch.arange(side).repeat_interleave(side)
            allowed = torch.ones(side * side, 14, dtype=torch.bool)
            allowed[:, 7:] = (column < side // 2)[:, None]
            query = attn.head_to_batch_dim(attn.to_q(hidden_states))

            def attend(keys: torch.Tensor, values: torch.Tensor, allowed: torch.Tensor | bool) -> torch.Tensor:
                keys, values = attn.head_to_batch_dim(keys), attn.head_to_batch_dim(values)
                scores = query @ keys.transpose(1, 2) * attn.scale
                scores = torch.where(torch.as_tensor(allowed), scores, -torch.inf)
                return attn.batch_to_head_dim(scores.softmax(dim=-1) @ values)

            text = attend(attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), allowed)
            image_attention = attend(self.pair.keys, self.pair.values, True) * (row < side // 2)[None, :, None]
            return attn.to_out[0](text + 0.7 * image_attention)

    by_hand = copy.deepcopy(unet)
    by_hand.set_attn_processor(
        {
            name: ByHand(number) if ".attn2." in name else processor
            for number, (name, processor) in enumerate(by_hand.attn_processors.items())
        }
    )
    added = {"text_embeds": POSITIVE.pooled_embeds, "time_ids": POSITIVE.add_time_ids}
    with torch.inference_mode():
        down, mid = nets[0](
            latents, timestep, encoder_hidden_states=conditioning.embeds, conditioning_scale=0.8,
            controlnet_cond=pixels_of(image_of(0, SIDE, SIDE)), added_cond_kwargs=added, return_dict=False,
        )  # fmt: skip
        expected = by_hand(
            latents, timestep, encoder_hidden_states=conditioning.embeds, added_cond_kwargs=added,
            down_block_additional_residuals=down, mid_block_additional_residual=mid,
        ).sample  # fmt: skip
        with cross_attention(unet, attention):
            result = UNetDenoiser(unet, attention=attention, controls=[control])(latents, timestep, conditioning)
    assert torch.allclose(result, expected, atol=1e-5)


def hole() -> torch.Tensor:
    """Return (1, 1, height, width), 1 where the image changes."""
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 16:48, 8:40] = 1
    return mask


def inpaint_reference(unet: Any, **inputs: Any) -> torch.Tensor:
    """Return latents that diffusers denoises from half of the noise on, which it draws with seed 1."""
    diffusers_pipeline = reference("StableDiffusionXLInpaintPipeline", unet, add_watermarker=False)
    original = noise_of(9, *LATENTS)
    generator = torch.Generator().manual_seed(1)
    return run(
        diffusers_pipeline, image=original, mask_image=hole(), strength=0.5, generator=generator, latents=None, **inputs
    )


def test_inpainting_with_a_plain_model(unet: Any):
    latents = denoise(unet, latents=noise_of(9, *LATENTS), keep_mask=1 - hole(), start=0.5)
    assert torch.allclose(latents, inpaint_reference(unet), atol=1e-4)
    inside = hole()[..., ::8, ::8].expand(LATENTS) > 0
    assert torch.equal(latents[~inside], noise_of(9, *LATENTS)[~inside])


def test_inpainting_with_an_inpainting_model():
    nine = make_unet(**NETWORK, in_channels=9, up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"])
    original, masked = noise_of(9, *LATENTS), noise_of(12, *LATENTS)
    expected = inpaint_reference(nine, masked_image_latents=masked)
    latents = denoise(nine, latents=original, masked_latents=masked, keep_mask=1 - hole(), start=0.5)
    inside = hole()[..., ::8, ::8]
    assert torch.allclose(latents, torch.lerp(original, expected, inside), atol=1e-4), "what is kept is put back"
