"""Z-Image's graph building blocks, with the same nodes as InvokeAI's web UI."""

from collections.abc import Sequence

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import DenoiseRun, ModelParts, recipe
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


@recipe(BaseModelType.ZImage)
class ZImageRecipe(FlowRecipe):
    """Recipe of Z-Image. The turbo model runs without guidance, and then without a negative prompt."""

    name = "z_image"
    metadata_mode = "z_image_"
    text_encoders = ("qwen3_encoder",)

    def uses_negative_prompt(self, guidance: float) -> bool:
        """Return whether there is guidance."""
        return guidance > 1.0

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode for the whole image or a region."""
        return builder.output(
            name, "z_image_text_encoder", "conditioning", prompt=text, mask=region, **dict(parts.text_encoders)
        )

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Combine the prompts of regions."""
        return prompts[0] if len(prompts) == 1 else builder.collect(name, prompts)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, or latents with that noise."""
        return builder.output(
            name,
            "z_image_denoise",
            "latents",
            transformer=parts.denoiser,
            positive_conditioning=run.positive,
            negative_conditioning=run.negative if run.guidance > 1.0 else None,
            latents=run.latents,
            denoise_mask=run.mask,
            denoising_start=run.start,
            denoising_end=run.end,
            add_noise=run.add_noise,
            steps=run.steps,
            guidance_scale=max(run.guidance, 1.0),
            scheduler=run.scheduler,
            seed=run.seed,
            width=run.width,
            height=run.height,
        )
