"""The tiled denoise node."""

from contextlib import ExitStack

from pydantic import field_validator

from invokeclone.components.control.fields import ControlField
from invokeclone.families.stable_diffusion.fields import UNetField
from invokeclone.families.stable_diffusion.nodes.controls import controlnets
from invokeclone.families.stable_diffusion.nodes.denoise import at_least_one, denoise_task
from invokeclone.graph.context import InvocationContext, PipelineIntermediateState
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import LATENT_SCALE_FACTOR, LatentsOutput
from invokeclone.graph.vocabulary.fields import ConditioningField, FieldDescriptions, Input, InputField, LatentsField
from invokeclone.graph.vocabulary.hints import UIType
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES


@invocation(
    "tiled_multi_diffusion_denoise_latents",
    title="Tiled Multi-Diffusion Denoise - SD1.5, SDXL",
    tags=["upscale", "denoise"],
    category="latents",
    version="1.0.1",
)
class TiledMultiDiffusionDenoiseLatents(BaseInvocation):
    """Denoise large latents in tiles that are blended after every step."""

    positive_conditioning: ConditioningField = InputField(
        description=FieldDescriptions.positive_cond, input=Input.Connection
    )
    negative_conditioning: ConditioningField = InputField(
        description=FieldDescriptions.negative_cond, input=Input.Connection
    )
    noise: LatentsField | None = InputField(default=None, description=FieldDescriptions.noise, input=Input.Connection)
    latents: LatentsField | None = InputField(
        default=None, description=FieldDescriptions.latents, input=Input.Connection
    )
    tile_height: int = InputField(
        default=1024, gt=0, multiple_of=LATENT_SCALE_FACTOR, description="Tile height in pixels"
    )
    tile_width: int = InputField(
        default=1024, gt=0, multiple_of=LATENT_SCALE_FACTOR, description="Tile width in pixels"
    )
    tile_overlap: int = InputField(
        default=32, gt=0, multiple_of=LATENT_SCALE_FACTOR, description="Minimum overlap of neighboring tiles, in pixels"
    )
    steps: int = InputField(default=18, gt=0, description=FieldDescriptions.steps)
    cfg_scale: float | list[float] = InputField(default=6.0, description=FieldDescriptions.cfg_scale, title="CFG Scale")
    denoising_start: float = InputField(default=0.0, ge=0, le=1, description=FieldDescriptions.denoising_start)
    denoising_end: float = InputField(default=1.0, ge=0, le=1, description=FieldDescriptions.denoising_end)
    scheduler: SCHEDULER_NAME_VALUES = InputField(
        default="euler", description=FieldDescriptions.scheduler, ui_type=UIType.Scheduler
    )
    unet: UNetField = InputField(description=FieldDescriptions.unet, input=Input.Connection, title="UNet")
    cfg_rescale_multiplier: float = InputField(
        title="CFG Rescale Multiplier", default=0, ge=0, lt=1, description=FieldDescriptions.cfg_rescale_multiplier
    )
    control: ControlField | list[ControlField] | None = InputField(
        default=None, description="ControlNets to apply", input=Input.Connection
    )

    @field_validator("cfg_scale")
    @classmethod
    def _at_least_one(cls, value: float | list[float]) -> float | list[float]:
        return at_least_one(value)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Return the denoised latents."""
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.engine.loaded import device_of
        from invokeclone.engine.optimizations import apply_optimizations
        from invokeclone.families.stable_diffusion import multi_diffusion

        unet_info = context.models.load(self.unet.unet)
        base = unet_info.config.base
        sampler = context.models.load(self.unet.scheduler).model.config
        task = denoise_task(self, context, sampler, getattr(unet_info.config, "prediction_type", None))
        sides = (side // LATENT_SCALE_FACTOR for side in (self.tile_height, self.tile_width, self.tile_overlap))
        tiling = multi_diffusion.Tiling(*sides)

        def on_step(state: PipelineIntermediateState) -> None:
            context.util.sd_step_callback(state, base)

        with ExitStack() as stack:
            # 1. the UNet and its modifications
            unet = stack.enter_context(unet_info)
            stack.enter_context(patch_loras(context, self.unet.loras, unet, "unet"))
            # 2. controls
            task.controls = controlnets(context, stack, self.control, base, unet)
            # 3. the loop
            device = device_of(unet_info, unet)
            stack.enter_context(apply_optimizations(unet, context.config.get(), device, reuses_attention=False))
            latents = multi_diffusion.denoise(unet, task, tiling, device, on_step)
        return LatentsOutput.build(context.tensors.save(latents), latents)
