"""Denoise nodes. They collect their inputs into a task for `pipeline.denoise`."""

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import field_validator

from invokeclone.components.control.fields import ControlField, IPAdapterField, T2IAdapterField
from invokeclone.families.stable_diffusion.fields import UNetField
from invokeclone.families.stable_diffusion.nodes.controls import controlnets, t2i_adapters
from invokeclone.families.stable_diffusion.nodes.ip_adapter import image_prompts
from invokeclone.graph.context import InvocationContext, PipelineIntermediateState
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import LatentsMetaOutput, LatentsOutput
from invokeclone.graph.vocabulary.fields import (
    ConditioningField,
    DenoiseMaskField,
    FieldDescriptions,
    Input,
    InputField,
    LatentsField,
    MetadataField,
    WithMetadata,
)
from invokeclone.graph.vocabulary.hints import UIType
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

if TYPE_CHECKING:
    import torch

    from invokeclone.families.stable_diffusion.conditioning import TextConditioning
    from invokeclone.families.stable_diffusion.denoiser import Control
    from invokeclone.families.stable_diffusion.hidiffusion import HiDiffusion
    from invokeclone.families.stable_diffusion.pipeline import DenoiseTask

_TAGS = ["latents", "denoise", "txt2img", "t2i", "t2l", "img2img", "i2i", "l2l"]


@invocation("denoise_latents", title="Denoise - SD1.5, SDXL", tags=_TAGS, category="latents", version="1.6.0")
class DenoiseLatentsInvocation(BaseInvocation):
    """Denoise latents with a prompt."""

    positive_conditioning: ConditioningField | list[ConditioningField] = InputField(
        description=FieldDescriptions.positive_cond, input=Input.Connection, ui_order=0
    )
    negative_conditioning: ConditioningField | list[ConditioningField] = InputField(
        description=FieldDescriptions.negative_cond, input=Input.Connection, ui_order=1
    )
    noise: LatentsField | None = InputField(
        default=None, description=FieldDescriptions.noise, input=Input.Connection, ui_order=3
    )
    steps: int = InputField(default=10, gt=0, description=FieldDescriptions.steps)
    cfg_scale: float | list[float] = InputField(default=7.5, description=FieldDescriptions.cfg_scale, title="CFG Scale")
    denoising_start: float = InputField(default=0.0, ge=0, le=1, description=FieldDescriptions.denoising_start)
    denoising_end: float = InputField(default=1.0, ge=0, le=1, description=FieldDescriptions.denoising_end)
    scheduler: SCHEDULER_NAME_VALUES = InputField(
        default="euler", description=FieldDescriptions.scheduler, ui_type=UIType.Scheduler
    )
    unet: UNetField = InputField(description=FieldDescriptions.unet, input=Input.Connection, title="UNet", ui_order=2)
    control: ControlField | list[ControlField] | None = InputField(
        default=None, description="ControlNets to apply", input=Input.Connection, ui_order=5
    )
    ip_adapter: IPAdapterField | list[IPAdapterField] | None = InputField(
        default=None, description="IP-Adapters to apply", title="IP-Adapter", input=Input.Connection, ui_order=6
    )
    t2i_adapter: T2IAdapterField | list[T2IAdapterField] | None = InputField(
        default=None, description="T2I-Adapters to apply", title="T2I-Adapter", input=Input.Connection, ui_order=7
    )
    cfg_rescale_multiplier: float = InputField(
        title="CFG Rescale Multiplier", default=0, ge=0, lt=1, description=FieldDescriptions.cfg_rescale_multiplier
    )
    latents: LatentsField | None = InputField(
        default=None, description=FieldDescriptions.latents, input=Input.Connection, ui_order=4
    )
    denoise_mask: DenoiseMaskField | None = InputField(
        default=None, description=FieldDescriptions.denoise_mask, input=Input.Connection, ui_order=8
    )
    hidiffusion: bool = InputField(default=False, description="Apply HiDiffusion", title="HiDiffusion")
    hidiffusion_raunet: bool = InputField(
        default=True, description="Use HiDiffusion's resolution-aware UNet", title="HiDiffusion: RAU-Net"
    )
    hidiffusion_window_attn: bool = InputField(
        default=True, description="Use HiDiffusion's windowed attention", title="HiDiffusion: Window Attention"
    )
    hidiffusion_t1_ratio: float = InputField(
        default=0.4,
        ge=0,
        le=1,
        description="HiDiffusion's first threshold, as a fraction of the steps",
        title="HiDiffusion: T1 Ratio",
    )
    hidiffusion_t2_ratio: float = InputField(
        default=0.0,
        ge=0,
        le=1,
        description="HiDiffusion's second threshold, as a fraction of the steps",
        title="HiDiffusion: T2 Ratio",
    )

    @field_validator("cfg_scale")
    @classmethod
    def _at_least_one(cls, value: float | list[float]) -> float | list[float]:
        return at_least_one(value)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Return the denoised latents."""
        latents = self._denoise(context)
        return LatentsOutput.build(context.tensors.save(latents), latents)

    def _denoise(self, context: InvocationContext) -> "torch.Tensor":
        """Return the denoised latents, on the CPU."""
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.engine.loaded import device_of
        from invokeclone.engine.optimizations import apply_optimizations
        from invokeclone.families.stable_diffusion import pipeline

        unet_info = context.models.load(self.unet.unet)
        scheduler_info = context.models.load(self.unet.scheduler)
        prediction_type = getattr(unet_info.config, "prediction_type", None)
        task = self._task(context, scheduler_info.model.config, prediction_type)
        base = unet_info.config.base
        task.image_prompts = image_prompts(context, self.ip_adapter, base)
        task.hidiffusion = self._hidiffusion(unet_info.config)

        def on_step(state: PipelineIntermediateState) -> None:
            context.util.sd_step_callback(state, base)

        with ExitStack() as stack:
            # 1. the UNet and its modifications
            unet = stack.enter_context(unet_info)
            device = device_of(unet_info, unet)
            stack.enter_context(patch_loras(context, self.unet.loras, unet, "unet"))
            # 2. controls
            task.controls = self._controls(context, stack, base, unet)
            # 3. the loop
            stack.enter_context(
                apply_optimizations(unet, context.config.get(), device, reuses_attention=not self.hidiffusion)
            )
            return pipeline.denoise(unet, task, device, on_step)

    def _controls(
        self, context: InvocationContext, stack: ExitStack, base: BaseModelType, unet: Any
    ) -> "list[Control]":
        """Return the controls; `stack` holds their models."""
        return [
            *controlnets(context, stack, self.control, base, unet),
            *t2i_adapters(context, stack, self.t2i_adapter, base),
        ]

    def _hidiffusion(self, config: Any) -> "HiDiffusion | None":
        from invokeclone.families.stable_diffusion.hidiffusion import HiDiffusion

        if not self.hidiffusion:
            return None
        return HiDiffusion(
            raunet=self.hidiffusion_raunet,
            windows=self.hidiffusion_window_attn,
            t1=self.hidiffusion_t1_ratio,
            t2=self.hidiffusion_t2_ratio,
            source=str(getattr(config, "source", "")),
        )

    def _task(self, context: InvocationContext, scheduler_config: Any, prediction_type: str | None) -> "DenoiseTask":
        mask = self.denoise_mask
        masked = mask.masked_latents_name if mask else None
        return replace(
            denoise_task(self, context, scheduler_config, prediction_type),
            keep_mask=context.tensors.load(mask.mask_name) if mask else None,
            gradient_mask=mask.gradient if mask else False,
            masked_latents=context.tensors.load(masked) if masked else None,
            seamless_axes=self.unet.seamless_axes,
            free_u=self.unet.freeu_config,
        )


@invocation(
    "denoise_latents_meta", title="Denoise - SD1.5, SDXL + Metadata", tags=_TAGS, category="metadata", version="1.2.0"
)
class DenoiseLatentsMetaInvocation(DenoiseLatentsInvocation, WithMetadata):
    """Denoise latents and add the parameters to the metadata."""

    def invoke(self, context: InvocationContext) -> LatentsMetaOutput:
        """Denoise the latents and add the parameters to the metadata."""
        latents = self._denoise(context)
        output = LatentsOutput.build(context.tensors.save(latents), latents)
        metadata = MetadataField({**(self.metadata.root if self.metadata else {}), **self._parameters(output)})
        return LatentsMetaOutput(latents=output.latents, width=output.width, height=output.height, metadata=metadata)

    def _parameters(self: Self, output: LatentsOutput) -> dict[str, Any]:
        seeds = {"seed": self.noise.seed} if self.noise and self.noise.seed is not None else {}
        return {
            "width": output.width,
            "height": output.height,
            "steps": self.steps,
            "cfg_scale": self.cfg_scale,
            "cfg_rescale_multiplier": self.cfg_rescale_multiplier,
            "denoising_start": self.denoising_start,
            "denoising_end": self.denoising_end,
            "scheduler": self.scheduler,
            "model": self.unet.unet.model_dump(mode="json"),
            **seeds,
        }


def at_least_one(scale: float | list[float]) -> float | list[float]:
    """Return a guidance scale, or one per step. Raises ValueError if one is below 1."""
    scales = scale if isinstance(scale, list) else [scale]
    if not scales or min(scales) < 1:
        message = "cfg_scale must be at least 1 in every step"
        raise ValueError(message)
    return scale


def denoise_task(
    node: Any, context: InvocationContext, scheduler_config: Any, prediction_type: str | None
) -> "DenoiseTask":
    """Return the task with the inputs that all denoise nodes have; `node` is one of them."""
    from invokeclone.families.stable_diffusion.pipeline import DenoiseTask

    settings = context.config.get()
    latents = context.tensors.load(node.latents.latents_name) if node.latents else None
    noise = context.tensors.load(node.noise.latents_name) if node.noise else None
    seeds = [field.seed for field in (node.noise, node.latents) if field is not None and field.seed is not None]
    return DenoiseTask(
        positive=text_conditioning(context, node.positive_conditioning),
        negative=text_conditioning(context, node.negative_conditioning, positive=False),
        scheduler=node.scheduler,
        scheduler_config=scheduler_config,
        steps=node.steps,
        noise=noise,
        latents=latents,
        cfg_scale=node.cfg_scale,
        cfg_rescale=node.cfg_rescale_multiplier,
        start=node.denoising_start,
        end=node.denoising_end,
        seeds=[seeds[0] if seeds else 0] * rows_of(latents, noise),
        prediction_type=prediction_type,
        sequential=settings.sequential_guidance,
        guidance_end=settings.guidance_end,
    )


def rows_of(*tensors: "torch.Tensor | None") -> int:
    """Return the batch size."""
    return max((len(tensor) for tensor in tensors if tensor is not None), default=1)


def text_conditioning(
    context: InvocationContext, fields: ConditioningField | list[ConditioningField], *, positive: bool = True
) -> "TextConditioning":
    """Return the stored conditionings of one side of the guidance as one batch."""
    from invokeclone.families.stable_diffusion.conditioning import TextConditioning

    listed = fields if isinstance(fields, list) else [fields]
    if not listed:
        message = "denoising needs at least one positive and one negative conditioning"
        raise ValueError(message)
    return TextConditioning.of_prompts(
        [
            (
                context.conditioning.load(field.conditioning_name).conditionings[0],
                context.tensors.load(field.mask.tensor_name) if field.mask else None,
            )
            for field in listed
        ],
        positive=positive,
    )
