"""Stable Diffusion's building blocks for graphs, with the nodes that InvokeAI's own page uses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from invokeclone.families.stable_diffusion import prompt_language
from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import DenoiseRun, Model, ModelParts, Recipe, recipe
from invokeclone.graph.taxonomy import BaseModelType

Image = Mapping[str, str] | NodeOutput


@recipe(BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2)
class StableDiffusionRecipe(Recipe):
    """Stable Diffusion 1 and 2."""

    name = "sd1"
    metadata_mode = ""

    def load_model(self, builder: GraphBuilder, model: Model) -> ModelParts:
        """Load UNet, CLIP and VAE."""
        loader = builder.node("sd1_model_loader", "main_model_loader", model=dict(model))
        unet, clip, vae = (NodeOutput(loader, name) for name in ("unet", "clip", "vae"))
        return ModelParts(unet, {"clip": clip}, vae)

    def skip_clip_layers(self, builder: GraphBuilder, parts: ModelParts, count: int) -> ModelParts:
        """Skip layers; the node is there for 0 as well, so that other clients find the place."""
        clip = parts.text_encoders["clip"]
        return replace(
            parts,
            text_encoders={"clip": builder.output("clip_skip", "clip_skip", "clip", clip=clip, skipped_layers=count)},
        )

    def make_seamless(self, builder: GraphBuilder, parts: ModelParts) -> ModelParts:
        """Wrap UNet and VAE around in both directions."""
        axes = {"seamless_x": True, "seamless_y": True}
        node = builder.node("seamless", "seamless", unet=parts.denoiser, vae=parts.vae, **axes)
        return replace(parts, denoiser=NodeOutput(node, "unet"), vae=NodeOutput(node, "vae"))

    def write_prompt(self, prompt: Prompt) -> str:
        """Write it in compel's language."""
        return prompt_language.write(prompt)

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with compel."""
        clip = parts.text_encoders["clip"]
        return builder.output(name, "compel", "conditioning", prompt=text, clip=clip, mask=region)

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Put prompts behind each other."""
        collect = builder.node(name, "collect")
        for prompt in prompts:
            builder.connect(prompt, collect, "item")
        return NodeOutput(collect, "collection")

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise of the seed, with the variation's blended in."""
        return builder.output(
            name,
            "denoise_latents",
            "latents",
            unet=parts.denoiser,
            positive_conditioning=run.positive,
            negative_conditioning=run.negative,
            noise=self._noise(builder, f"{name}_noise", run) if run.add_noise else None,
            latents=run.latents,
            denoise_mask=run.mask,
            steps=run.steps,
            cfg_scale=run.guidance,
            cfg_rescale_multiplier=run.cfg_rescale,
            scheduler=run.scheduler,
            denoising_start=run.start,
            denoising_end=run.end,
        )

    def _noise(self, builder: GraphBuilder, name: str, run: DenoiseRun) -> NodeOutput:
        size = {"width": run.width, "height": run.height}
        noise = builder.output(name, "noise", "noise", seed=run.seed, use_cpu=True, **size)
        if run.variation is None:
            return noise
        varied = builder.output(f"{name}_varied", "noise", "noise", seed=run.variation.seed, use_cpu=True, **size)
        strength = run.variation.strength
        return builder.output(f"{name}_blend", "lblend", "latents", latents_a=noise, latents_b=varied, alpha=strength)

    def decode(
        self, builder: GraphBuilder, name: str, latents: NodeOutput, vae: NodeOutput, tile: int | None = None
    ) -> NodeOutput:
        """Decode in float32."""
        tiles = {} if tile is None else {"tiled": True, "tile_size": tile}
        return builder.output(name, "l2i", "image", latents=latents, vae=vae, fp32=True, **tiles)

    def encode_image(self, builder: GraphBuilder, name: str, image: Image, vae: NodeOutput) -> NodeOutput:
        """Encode in float32."""
        return builder.output(name, "i2l", "latents", image=image, vae=vae, fp32=True)

    def denoise_mask(
        self, builder: GraphBuilder, name: str, mask: Image, image: Image | None, vae: NodeOutput
    ) -> NodeOutput:
        """Make the mask, and the masked image's latents for inpainting models."""
        return builder.output(name, "create_denoise_mask", "denoise_mask", mask=mask, image=image, vae=vae, fp32=True)
