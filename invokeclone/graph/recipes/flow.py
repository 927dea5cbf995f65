"""The recipe of families whose nodes have InvokeAI's usual names: `<name>_model_loader`, `_text_encoder`, `_denoise` and so on.

They have classifier-free guidance, no prompt language, and no choice of schedulers.
"""

from collections.abc import Mapping

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes.blocks import Recipe
from invokeclone.graph.recipes.runs import DenoiseRun, ModelParts
from invokeclone.graph.recipes.settings import CannotBuild, Model


class FlowRecipe(Recipe):
    """A family sets `name` and `text_encoders`."""

    text_encoders: tuple[str, ...]
    """Outputs of the model loader that are inputs of the prompt node."""
    decode_node = "l2i"
    encode_node = "i2l"
    """Types of the VAE's nodes, after the family's name."""

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:
        """Load transformer, text encoders and VAE."""
        separate = {name: dict(part) for name, part in (parts or {}).items()}
        loader = builder.node("model_loader", f"{self.name}_model_loader", model=dict(model), **separate)
        encoders = {name: NodeOutput(loader, name) for name in self.text_encoders}
        return ModelParts(NodeOutput(loader, "transformer"), encoders, NodeOutput(loader, "vae"))

    def write_prompt(self, prompt: Prompt) -> str:
        """Return the words: there are no weights."""
        return prompt.text

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode for the whole image."""
        if region is not None:
            raise CannotBuild(f"{self.name}: regional prompts are not supported")
        return builder.output(
            name, f"{self.name}_text_encoder", "conditioning", prompt=text, **dict(parts.text_encoders)
        )

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, or latents with that noise."""
        return builder.output(
            name,
            f"{self.name}_denoise",
            "latents",
            transformer=parts.denoiser,
            positive_conditioning=run.positive,
            negative_conditioning=run.negative,
            latents=run.latents,
            denoise_mask=run.mask,
            denoising_start=run.start,
            denoising_end=run.end,
            steps=run.steps,
            cfg_scale=run.guidance,
            seed=run.seed,
            width=run.width,
            height=run.height,
        )

    def decode(
        self,
        builder: GraphBuilder,
        name: str,
        latents: NodeOutput,
        vae: NodeOutput,
        tile: int | None = None,  # noqa: ARG002  (the nodes have no tiles)
    ) -> NodeOutput:
        """Decode the whole image at once."""
        return builder.output(name, f"{self.name}_{self.decode_node}", "image", latents=latents, vae=vae)

    def encode_image(
        self, builder: GraphBuilder, name: str, image: Mapping[str, str] | NodeOutput, vae: NodeOutput
    ) -> NodeOutput:
        """Encode the whole image at once."""
        return builder.output(name, f"{self.name}_{self.encode_node}", "latents", image=image, vae=vae)

    def denoise_mask(
        self,
        builder: GraphBuilder,
        name: str,
        mask: Mapping[str, str] | NodeOutput,
        image: Mapping[str, str] | NodeOutput | None,  # noqa: ARG002  (only inpainting models need it)
        vae: NodeOutput,
    ) -> NodeOutput:
        """Make the mask, without latents of the masked image."""
        return builder.output(name, "create_denoise_mask", "denoise_mask", mask=mask, vae=vae)
