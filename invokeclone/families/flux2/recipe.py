"""FLUX.2's graph building blocks, with the same nodes as InvokeAI's web UI."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from invokeclone.components.flux.references import add_references
from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import AppliedLoRA, DenoiseRun, LoRANode, Model, ModelParts, PartKind, recipe
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Flux2VariantType, ModelType

_TOKENS = "max_seq_len"
"""Input of the prompt node; it comes from the model loader, as the text encoder does."""


@recipe(BaseModelType.Flux2)
class Flux2Recipe(FlowRecipe):
    """Recipe of FLUX.2 klein. Without guidance there is no negative prompt."""

    name = "flux2"
    metadata_mode = "flux2_"
    decode_node = "vae_decode"
    encode_node = "vae_encode"
    text_encoders = ("qwen3_encoder",)
    separate_parts: Mapping[str, PartKind] = {
        "qwen3_encoder_model": PartKind(ModelType.Qwen3Encoder),
        "vae_model": PartKind(ModelType.VAE),
    }
    kind = "flux2_klein"
    """Prefix of the nodes that klein and dev do not share."""

    def uses_negative_prompt(self, guidance: float) -> bool:
        """Return whether there is guidance."""
        return guidance != 1.0

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:
        """Load transformer, text encoder and VAE."""
        separate = {name: dict(part) for name, part in (parts or {}).items()}
        loader = builder.node("model_loader", f"{self.kind}_model_loader", model=dict(model), **separate)
        encoders = {name: NodeOutput(loader, name) for name in (*self.text_encoders, _TOKENS)}
        return ModelParts(NodeOutput(loader, "transformer"), encoders, NodeOutput(loader, "vae"))

    def apply_loras(
        self, builder: GraphBuilder, name: str, parts: ModelParts, loras: Sequence[AppliedLoRA]
    ) -> ModelParts:
        """Apply LoRAs to transformer and text encoder."""
        node = LoRANode(f"{self.kind}_lora_collection_loader", "transformer", self.text_encoders)
        return node.apply(builder, name, parts, loras)

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with the text encoder."""
        encoders = dict(parts.text_encoders)
        return builder.output(name, f"{self.kind}_text_encoder", "conditioning", prompt=text, mask=region, **encoders)

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Combine the prompts of regions."""
        return prompts[0] if len(prompts) == 1 else builder.collect(name, prompts)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, or latents with that noise."""
        return self._denoise(builder, name, parts, replace(run, cfg_scale=run.guidance))

    def _denoise(
        self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun, **guidance: float
    ) -> NodeOutput:
        """Denoise with a negative prompt, if `run.cfg_scale` is not 1; `guidance` is an input of dev models."""
        guided = run.negative is not None and run.cfg_scale != 1.0
        return builder.output(
            name,
            "flux2_denoise",
            "latents",
            transformer=parts.denoiser,
            vae=parts.vae,
            positive_text_conditioning=run.positive,
            negative_text_conditioning=run.negative if guided else None,
            cfg_scale=run.cfg_scale if guided else 1.0,
            kontext_conditioning=add_references(builder, name, self.name, run.references),
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
            **guidance,
        )


@recipe(BaseModelType.Flux2, variant=Flux2VariantType.Dev)
class Flux2DevRecipe(Flux2Recipe):
    """Recipe of FLUX.2 dev. Its guidance is an input of the network, so that negative prompts are for a cfg_scale only."""

    text_encoders = ("mistral_encoder",)
    separate_parts: Mapping[str, PartKind] = {
        "mistral_encoder_model": PartKind(ModelType.MistralEncoder),
        "vae_model": PartKind(ModelType.VAE),
    }
    kind = "flux2_dev"
    guidance_name = "guidance"
    has_negative_prompt = False

    def uses_negative_prompt(self, guidance: float) -> bool:  # noqa: ARG002  (an input of the network)
        """Return that there is none by default."""
        return False

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, or latents with that noise."""
        return self._denoise(builder, name, parts, run, guidance=run.guidance)
