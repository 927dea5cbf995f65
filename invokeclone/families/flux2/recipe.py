"""FLUX.2 klein's graph building blocks, with the same nodes as InvokeAI's web UI."""

from collections.abc import Mapping, Sequence

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import (
    AppliedLoRA,
    CannotBuild,
    DenoiseRun,
    LoRANode,
    Model,
    ModelParts,
    PartKind,
    recipe,
)
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Flux2VariantType, ModelType

_TOKENS = "max_seq_len"
"""Input of the prompt node; it comes from the model loader, as the text encoder does."""
_ENCODERS = ("qwen3_encoder",)
_LORA_NODE = LoRANode("flux2_klein_lora_collection_loader", "transformer", _ENCODERS)


@recipe(BaseModelType.Flux2)
class Flux2Recipe(FlowRecipe):
    """Recipe of FLUX.2 klein. Without guidance there is no negative prompt."""

    name = "flux2"
    metadata_mode = "flux2_"
    text_encoders = _ENCODERS
    separate_parts: Mapping[str, PartKind] = {
        "qwen3_encoder_model": PartKind(ModelType.Qwen3Encoder),
        "vae_model": PartKind(ModelType.VAE),
    }

    def uses_negative_prompt(self, guidance: float) -> bool:
        """Return whether there is guidance."""
        return guidance != 1.0

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:
        """Load transformer, text encoder and VAE."""
        if model.get("variant") == Flux2VariantType.Dev:
            raise CannotBuild(f"{model['name']} is FLUX.2 dev, which this version cannot run: select a klein model")
        separate = {name: dict(part) for name, part in (parts or {}).items()}
        loader = builder.node("model_loader", "flux2_klein_model_loader", model=dict(model), **separate)
        encoders = {name: NodeOutput(loader, name) for name in (*_ENCODERS, _TOKENS)}
        return ModelParts(NodeOutput(loader, "transformer"), encoders, NodeOutput(loader, "vae"))

    def apply_loras(
        self, builder: GraphBuilder, name: str, parts: ModelParts, loras: Sequence[AppliedLoRA]
    ) -> ModelParts:
        """Apply LoRAs to transformer and text encoder."""
        return _LORA_NODE.apply(builder, name, parts, loras)

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with Qwen3."""
        encoders = dict(parts.text_encoders)
        return builder.output(name, "flux2_klein_text_encoder", "conditioning", prompt=text, mask=region, **encoders)

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Combine the prompts of regions."""
        return prompts[0] if len(prompts) == 1 else builder.collect(name, prompts)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, or latents with that noise."""
        guided = run.negative is not None and run.guidance != 1.0
        return builder.output(
            name,
            "flux2_denoise",
            "latents",
            transformer=parts.denoiser,
            vae=parts.vae,
            positive_text_conditioning=run.positive,
            negative_text_conditioning=run.negative if guided else None,
            cfg_scale=run.guidance if guided else 1.0,
            latents=run.latents,
            denoise_mask=run.mask,
            denoising_start=run.start,
            denoising_end=run.end,
            add_noise=run.add_noise,
            num_steps=run.steps,
            scheduler=run.scheduler,
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
        tile: int | None = None,  # noqa: ARG002  (the node has no tiles)
    ) -> NodeOutput:
        """Decode the whole image at once."""
        return builder.output(name, "flux2_vae_decode", "image", latents=latents, vae=vae)

    def encode_image(
        self, builder: GraphBuilder, name: str, image: Mapping[str, str] | NodeOutput, vae: NodeOutput
    ) -> NodeOutput:
        """Encode the whole image at once."""
        return builder.output(name, "flux2_vae_encode", "latents", image=image, vae=vae)
