"""Denoise nodes. They collect their inputs into a task for `pipeline.denoise`."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.denoisers.inputs import FlowDenoiseInputs, flow_inputs
from invokeclone.families.z_image.fields import ZImageConditioningField, ZImageControlField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_base
from invokeclone.graph.invocations.outputs import LatentsMetaOutput, LatentsOutput
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField, MetadataField, WithMetadata
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Classification

if TYPE_CHECKING:
    import torch

    from invokeclone.families.z_image.conditioning import ZImageConditioning
    from invokeclone.families.z_image.pipeline import ZImageDenoiseTask

SCHEDULERS = Literal["euler", "heun", "lcm"]
_SCHEDULER_LABELS = {"euler": "Euler", "heun": "Heun (2nd order)", "lcm": "LCM"}
_BASE = BaseModelType.ZImage


@invocation(
    "z_image_denoise",
    title="Denoise - Z-Image",
    tags=["image", "z-image"],
    category="latents",
    version="1.6.0",
    classification=Classification.Prototype,
)
class ZImageDenoiseInvocation(FlowDenoiseInputs, BaseInvocation):
    """Denoise latents with a Z-Image model."""

    add_noise: bool = InputField(default=True, description="Add noise for the first step to the latents")
    positive_conditioning: ZImageConditioningField | list[ZImageConditioningField] = InputField(
        description=FieldDescriptions.positive_cond, input=Input.Connection
    )
    negative_conditioning: ZImageConditioningField | list[ZImageConditioningField] | None = InputField(
        default=None, description="Negative conditioning; used if guidance_scale is above 1", input=Input.Connection
    )
    guidance_scale: float = InputField(
        default=1.0, ge=1.0, description="Classifier-free guidance scale; 1 for turbo models", title="Guidance Scale"
    )
    width: int = InputField(default=1024, multiple_of=16, description="Width of the image in pixels")
    height: int = InputField(default=1024, multiple_of=16, description="Height of the image in pixels")
    steps: int = InputField(default=8, gt=0, description="Number of steps: about 8 for turbo models, 50 for others")
    seed: int = InputField(default=0, description="Seed of the noise")
    control: ZImageControlField | None = InputField(
        default=None, description="ControlNet to apply", input=Input.Connection
    )
    vae: VAEField | None = InputField(
        default=None, description="VAE that encodes the control image", input=Input.Connection
    )
    shift: float | None = InputField(
        default=None, ge=0.0, description="Factor by which noise levels are shifted; default: by the image's size"
    )
    scheduler: SCHEDULERS = InputField(
        default="euler", description="Solver of the steps", ui_choice_labels=_SCHEDULER_LABELS
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
        from invokeclone.families.z_image import pipeline
        from invokeclone.families.z_image.lora_keys import TRANSFORMER
        from invokeclone.families.z_image.nodes.controls import encode_control_image, load_controlnet

        task, image = self._task(context), None
        if self.control is not None:
            image = encode_control_image(context, self.control, self.vae, self.width, self.height)
        loaded = context.models.load(self.transformer.transformer)
        check_base(loaded.config, _BASE)
        with ExitStack() as stack:
            transformer = stack.enter_context(loaded)
            stack.enter_context(patch_loras(context, self.transformer.loras, transformer, TRANSFORMER))
            if self.control is not None and image is not None:
                task.controls = [load_controlnet(context, stack, self.control, transformer, image)]
            device = device_of(loaded, transformer)
            stack.enter_context(apply_optimizations(transformer, context.config.get(), device))
            return pipeline.denoise(
                transformer,
                task,
                device,
                lambda state: context.util.sd_step_callback(state, _BASE),
            )

    def _task(self, context: InvocationContext) -> "ZImageDenoiseTask":
        from invokeclone.families.z_image.pipeline import ZImageDenoiseTask

        negative = None
        if self.negative_conditioning and self.guidance_scale > 1.0:
            negative = self._conditioning(context, "negative_conditioning", regional=False)
        return ZImageDenoiseTask(
            inputs=flow_inputs(self, context, cfg_scale=self.guidance_scale),
            positive=self._conditioning(context, "positive_conditioning", regional=True),
            negative=negative,
            scheduler=self.scheduler,
            shift=self.shift,
        )

    def _conditioning(self, context: InvocationContext, name: str, *, regional: bool) -> "ZImageConditioning":
        """Return one side of the guidance. Raises ValueError if there is none, or for another family's."""
        from invokeclone.families.z_image.conditioning import PromptOfRegion, ZImageConditioningInfo, build_conditioning
        from invokeclone.families.z_image.pipeline import PIXELS_PER_TOKEN_SIDE

        value: Any = getattr(self, name)
        regions = []
        for field in value if isinstance(value, list) else [value]:
            info = context.conditioning.load(field.conditioning_name).single(ZImageConditioningInfo, name)
            mask = context.tensors.load(field.mask.tensor_name) if field.mask and regional else None
            regions.append(PromptOfRegion(info.prompt_embeds, mask))
        if not regions:
            message = f"{name} is an empty list: connect at least one prompt"
            raise ValueError(message)
        side = PIXELS_PER_TOKEN_SIDE
        return build_conditioning(regions, self.height // side, self.width // side)


@invocation(
    "z_image_denoise_meta",
    title="Denoise - Z-Image + Metadata",
    tags=["z-image", "latents", "denoise", "txt2img", "t2i", "t2l", "img2img", "i2i", "l2l"],
    category="metadata",
    version="1.1.0",
)
class ZImageDenoiseMetaInvocation(ZImageDenoiseInvocation, WithMetadata):
    """Denoise latents with a Z-Image model and add the parameters to the metadata."""

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
            "steps": self.steps,
            "guidance": self.guidance_scale,
            "denoising_start": self.denoising_start,
            "denoising_end": self.denoising_end,
            "scheduler": self.scheduler,
            "model": self.transformer.transformer.model_dump(mode="json"),
            "seed": self.seed,
            **({"shift": self.shift} if self.shift is not None else {}),
            **({"loras": loras} if loras else {}),
        }
