"""Z-Image's graph building blocks, with the same nodes as InvokeAI's web UI."""

from collections.abc import Mapping, Sequence

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import AppliedLoRA, CannotBuild, DenoiseRun, LoRANode, ModelParts, PartKind, recipe
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType, Qwen3VariantType

_LORA_NODE = LoRANode("z_image_lora_collection_loader", "transformer", ("qwen3_encoder",))


@recipe(BaseModelType.ZImage)
class ZImageRecipe(FlowRecipe):
    """Recipe of Z-Image. The turbo model runs without guidance, and then without a negative prompt."""

    name = "z_image"
    metadata_mode = "z_image_"
    text_encoders = ("qwen3_encoder",)
    separate_parts: Mapping[str, PartKind] = {
        "qwen3_encoder_model": PartKind(ModelType.Qwen3Encoder, Qwen3VariantType.Qwen3_4B),
        "vae_model": PartKind(ModelType.VAE, base=BaseModelType.Flux),
    }
    sets_shift = True

    def uses_negative_prompt(self, guidance: float) -> bool:
        """Return whether there is guidance."""
        return guidance > 1.0

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
        """Encode for the whole image or a region."""
        return builder.output(
            name, "z_image_text_encoder", "conditioning", prompt=text, mask=region, **dict(parts.text_encoders)
        )

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Combine the prompts of regions."""
        return prompts[0] if len(prompts) == 1 else builder.collect(name, prompts)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, or latents with that noise."""
        control = self._control(builder, name, run)
        return builder.output(
            name,
            "z_image_denoise",
            "latents",
            transformer=parts.denoiser,
            positive_conditioning=run.positive,
            negative_conditioning=run.negative if run.guidance > 1.0 else None,
            control=control,
            vae=None if control is None else parts.vae,
            latents=run.latents,
            denoise_mask=run.mask,
            denoising_start=run.start,
            denoising_end=run.end,
            add_noise=run.add_noise,
            steps=run.steps,
            guidance_scale=max(run.guidance, 1.0),
            shift=run.shift,
            scheduler=run.scheduler,
            seed=run.seed,
            width=run.width,
            height=run.height,
        )

    def _control(self, builder: GraphBuilder, name: str, run: DenoiseRun) -> NodeOutput | None:
        """Return the run's ControlNet, of which the denoise node takes one."""
        if not run.controls:
            return None
        if len(run.controls) > 1:
            raise CannotBuild(f"{self.name}: only one ControlNet at a time is supported")
        fields = run.controls[0].fields()
        if run.controls[0].model["type"] != ModelType.ControlNet:
            raise CannotBuild(f"{self.name}: {run.controls[0].model['name']} is not a ControlNet")
        return builder.output(
            f"{name}_controlnet",
            "z_image_control",
            "control",
            control_context_scale=fields["control_weight"],
            **{key: fields[key] for key in ("image", "control_model", "begin_step_percent", "end_step_percent")},
        )
