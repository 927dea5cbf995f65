"""The family's building blocks for graphs."""

from collections.abc import Mapping
from typing import Any

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import DenoiseRun, Model, ModelParts, Recipe, recipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


@recipe(BaseModelType.Unknown)
class TinyFlowRecipe(Recipe):
    name = "tiny_flow"

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:
        loader = builder.node("loader", "tiny_flow_model_loader", model=dict(model))
        transformer, clip, vae = (NodeOutput(loader, name) for name in ("transformer", "clip", "vae"))
        return ModelParts(transformer, {"clip": clip}, vae)

    def write_prompt(self, prompt: Prompt) -> str:
        return prompt.text

    def encode_prompt(self, builder: GraphBuilder, name: str, parts: ModelParts, text: Any, region: Any = None) -> Any:
        clip = parts.text_encoders["clip"]
        return builder.output(name, "tiny_flow_prompt", "conditioning", prompt=text, clip=clip)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        return builder.output(
            name,
            "tiny_flow_denoise",
            "latents",
            transformer=parts.denoiser,
            positive_conditioning=run.positive,
            negative_conditioning=run.negative,
            latents=run.latents,
            denoise_mask=run.mask,
            denoising_start=run.start,
            steps=run.steps,
            cfg_scale=run.guidance,
            seed=run.seed,
            width=run.width,
            height=run.height,
        )

    def decode(self, builder: GraphBuilder, name: str, latents: Any, vae: Any, tile: int | None = None) -> NodeOutput:
        return builder.output(name, "l2i", "image", latents=latents, vae=vae, fp32=True)

    def encode_image(self, builder: GraphBuilder, name: str, image: Any, vae: Any) -> NodeOutput:
        return builder.output(name, "i2l", "latents", image=image, vae=vae, fp32=True)

    def denoise_mask(self, builder: GraphBuilder, name: str, mask: Any, image: Any, vae: Any) -> NodeOutput:
        return builder.output(name, "create_denoise_mask", "denoise_mask", mask=mask, vae=vae)
