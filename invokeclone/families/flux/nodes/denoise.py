"""Denoise nodes. They collect their inputs into a task for `pipeline.denoise`."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.control.fields import IPAdapterField
from invokeclone.components.denoisers.inputs import FlowDenoiseInputs, flow_inputs
from invokeclone.components.flux.fields import FluxConditioningField, FluxKontextConditioningField
from invokeclone.families.flux.fields import (
    ControlLoRAField,
    FluxControlNetField,
    FluxFillConditioningField,
    FluxReduxConditioningField,
)
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.inputs import as_list
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_base
from invokeclone.graph.invocations.outputs import LatentsMetaOutput, LatentsOutput
from invokeclone.graph.vocabulary.fields import (
    FieldDescriptions,
    Input,
    InputField,
    MetadataField,
    WithMetadata,
)
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, FluxVariantType

if TYPE_CHECKING:
    import torch

    from invokeclone.families.flux.conditioning import FluxConditioning
    from invokeclone.families.flux.pipeline import FluxDenoiseTask

SCHEDULERS = Literal["euler", "heun", "lcm"]
PRESETS = Literal["off", "manual", "auto", "area", "4k"]
_SCHEDULER_LABELS = {"euler": "Euler", "heun": "Heun (2nd order)", "lcm": "LCM"}
_PRESET_LABELS = {
    "off": "Off",
    "manual": "Manual",
    "auto": "Auto (>1536px)",
    "area": "Area (auto)",
    "4k": "4K Optimized",
}


@invocation("flux_denoise", title="FLUX Denoise", tags=["image", "flux"], category="latents", version="4.6.0")
class FluxDenoiseInvocation(FlowDenoiseInputs, BaseInvocation):
    """Denoise latents with a FLUX.1 model."""

    add_noise: bool = InputField(default=True, description="Add noise for the first step to the latents")
    control_lora: ControlLoRAField | None = InputField(
        default=None, description="Control LoRA to apply", input=Input.Connection, title="Control LoRA"
    )
    positive_text_conditioning: FluxConditioningField | list[FluxConditioningField] = InputField(
        description=FieldDescriptions.positive_cond, input=Input.Connection
    )
    negative_text_conditioning: FluxConditioningField | list[FluxConditioningField] | None = InputField(
        default=None, description="Negative conditioning; needed if cfg_scale is not 1", input=Input.Connection
    )
    redux_conditioning: FluxReduxConditioningField | list[FluxReduxConditioningField] | None = InputField(
        default=None, description="Images that are added to the prompt", input=Input.Connection
    )
    fill_conditioning: FluxFillConditioningField | None = InputField(
        default=None, description="Image and mask for FLUX.1 Fill", input=Input.Connection
    )
    cfg_scale: float | list[float] = InputField(default=1.0, description=FieldDescriptions.cfg_scale, title="CFG Scale")
    cfg_scale_start_step: int = InputField(
        default=0, title="CFG Scale Start Step", description="First step with cfg_scale; negative counts from the end"
    )
    cfg_scale_end_step: int = InputField(
        default=-1, title="CFG Scale End Step", description="Last step with cfg_scale; negative counts from the end"
    )
    width: int = InputField(default=1024, multiple_of=16, description="Width of the image in pixels")
    height: int = InputField(default=1024, multiple_of=16, description="Height of the image in pixels")
    num_steps: int = InputField(default=4, description="Number of steps: about 4 for schnell, 20 to 50 for dev")
    scheduler: SCHEDULERS = InputField(
        default="euler", description="Solver of the steps", ui_choice_labels=_SCHEDULER_LABELS
    )
    guidance: float = InputField(
        default=4.0, description="Strength of the prompt for dev models, which learned it; schnell ignores it"
    )
    seed: int = InputField(default=0, description="Seed of the noise")
    control: FluxControlNetField | list[FluxControlNetField] | None = InputField(
        default=None, description="ControlNets to apply", input=Input.Connection
    )
    controlnet_vae: VAEField | None = InputField(
        default=None,
        description="VAE that encodes the images of controls, references and Fill",
        input=Input.Connection,
    )
    ip_adapter: IPAdapterField | list[IPAdapterField] | None = InputField(
        default=None, description="IP-Adapters to apply", title="IP-Adapter", input=Input.Connection
    )
    kontext_conditioning: FluxKontextConditioningField | list[FluxKontextConditioningField] | None = InputField(
        default=None, description="Reference images for FLUX.1 Kontext", input=Input.Connection
    )
    dype_preset: PRESETS = InputField(
        default="off",
        description="Dynamic position extrapolation for images larger than 1024 x 1024",
        ui_choice_labels=_PRESET_LABELS,
        ui_order=100,
    )
    dype_scale: float | None = InputField(
        default=None, ge=0, le=8, description="Scale of the preset manual", ui_order=101
    )
    dype_exponent: float | None = InputField(
        default=None, ge=0, le=1000, description="Exponent of the preset manual", ui_order=102
    )

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Return the denoised latents."""
        latents = self._denoise(context)
        return LatentsOutput.build(context.tensors.save(latents), latents)

    def _denoise(self, context: InvocationContext) -> "torch.Tensor":
        """Return the denoised latents, on the CPU."""
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.engine.loaded import device_of
        from invokeclone.engine.optimizations import apply_optimizations
        from invokeclone.families.flux import pipeline
        from invokeclone.families.flux.control_lora import PART
        from invokeclone.families.flux.nodes.controls import controlnets
        from invokeclone.families.flux.nodes.loras import patch_control_lora

        task = self._task(context)
        info = context.models.load(self.transformer.transformer)
        with ExitStack() as stack:
            transformer = stack.enter_context(info)
            device = device_of(info, transformer)
            stack.enter_context(patch_loras(context, self.transformer.loras, transformer, PART))
            stack.enter_context(patch_control_lora(context, self.control_lora, transformer, device))
            task.controls = controlnets(context, stack, as_list(self.control), self, transformer)
            reuses_attention = not task.image_prompts  # they read the attention of each step
            stack.enter_context(
                apply_optimizations(transformer, context.config.get(), device, reuses_attention=reuses_attention)
            )
            return pipeline.denoise(transformer, task, device, context.util.flux_step_callback)

    def _task(self, context: InvocationContext) -> "FluxDenoiseTask":
        """Return the task; its images are encoded, so that the VAE has left the device when denoising begins."""
        from invokeclone.families.flux.nodes.controls import image_prompts
        from invokeclone.families.flux.nodes.images import fill, kontext
        from invokeclone.families.flux.nodes.loras import control_image
        from invokeclone.families.flux.pipeline import FluxDenoiseTask
        from invokeclone.families.flux.position_scaling import dynamic_positions

        record = context.models.get_config(self.transformer.transformer.key)
        check_base(record, BaseModelType.Flux)
        variant = getattr(record, "variant", None)
        positive = self._conditioning(context, self.positive_text_conditioning, positive=True)
        negative = None
        if self.negative_text_conditioning:
            negative = self._conditioning(context, self.negative_text_conditioning, positive=False)
        return FluxDenoiseTask(
            inputs=flow_inputs(self, context, self.num_steps),
            positive=positive,
            negative=negative,
            scheduler=self.scheduler,
            shifted=variant != FluxVariantType.Schnell,
            guidance=self.guidance,
            cfg_start=self.cfg_scale_start_step,
            cfg_end=self.cfg_scale_end_step,
            added=fill(context, self.fill_conditioning, self.controlnet_vae, self.width, self.height),
            control_image=control_image(context, self),
            references=kontext(context, as_list(self.kontext_conditioning), self.controlnet_vae),
            image_prompts=image_prompts(context, as_list(self.ip_adapter)),
            scaling=dynamic_positions(self.dype_preset, self.width, self.height, self.dype_scale, self.dype_exponent),
            cache_threshold=context.config.get().first_block_cache_threshold,
        )

    def _conditioning(
        self,
        context: InvocationContext,
        fields: FluxConditioningField | list[FluxConditioningField],
        *,
        positive: bool,
    ) -> "FluxConditioning":
        """Return one side of the guidance. Raises ValueError if there is none, or for another family's."""
        from invokeclone.components.flux.conditioning import FLUXConditioningInfo
        from invokeclone.components.flux.regions import PromptRegion
        from invokeclone.families.flux.conditioning import build_conditioning
        from invokeclone.families.flux.pipeline import PIXELS_PER_TOKEN_SIDE

        name = f"{'positive' if positive else 'negative'}_text_conditioning"
        prompts = [
            (
                context.conditioning.load(field.conditioning_name).single(FLUXConditioningInfo, name),
                _mask(context, field),
            )
            for field in as_list(fields)
        ]
        if not prompts:
            message = f"{name} is an empty list: connect at least one prompt"
            raise ValueError(message)
        regions = [PromptRegion(info.t5_embeds, mask) for info, mask in prompts]
        for field in as_list(self.redux_conditioning) if positive else ():
            embeds = context.tensors.load(field.conditioning.tensor_name)
            regions.append(PromptRegion(embeds, _mask(context, field)))
        pooled = next((info for info, mask in prompts if mask is None), prompts[0][0]).clip_embeds
        side = PIXELS_PER_TOKEN_SIDE
        return build_conditioning(regions, pooled, self.height // side, self.width // side, positive=positive)


@invocation(
    "flux_denoise_meta",
    title="FLUX Denoise + Metadata",
    tags=["flux", "latents", "denoise", "txt2img", "t2i", "t2l", "img2img", "i2i", "l2l"],
    category="metadata",
    version="1.0.1",
)
class FluxDenoiseLatentsMetaInvocation(FluxDenoiseInvocation, WithMetadata):
    """Denoise latents with a FLUX.1 model and add the parameters to the metadata."""

    def invoke(self, context: InvocationContext) -> LatentsMetaOutput:
        """Denoise the latents and add the parameters to the metadata."""
        latents = self._denoise(context)
        output = LatentsOutput.build(context.tensors.save(latents), latents)
        metadata = MetadataField({**(self.metadata.root if self.metadata else {}), **self._parameters()})
        return LatentsMetaOutput(latents=output.latents, width=output.width, height=output.height, metadata=metadata)

    def _parameters(self) -> dict[str, Any]:
        loras = [{"model": f.lora.model_dump(mode="json"), "weight": f.weight} for f in self.transformer.loras]
        return {
            "width": self.width,
            "height": self.height,
            "steps": self.num_steps,
            "guidance": self.guidance,
            "denoising_start": self.denoising_start,
            "denoising_end": self.denoising_end,
            "scheduler": self.scheduler,
            "model": self.transformer.transformer.model_dump(mode="json"),
            "seed": self.seed,
            **({"loras": loras} if loras else {}),
        }


def _mask(
    context: InvocationContext, field: FluxConditioningField | FluxReduxConditioningField
) -> "torch.Tensor | None":
    return context.tensors.load(field.mask.tensor_name) if field.mask else None
