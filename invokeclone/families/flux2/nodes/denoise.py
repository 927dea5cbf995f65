"""The denoise node. It collects its inputs into a task for `pipeline.denoise`."""

from typing import TYPE_CHECKING, Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.denoisers.inputs import FlowDenoiseInputs, flow_inputs
from invokeclone.components.flux.fields import FluxConditioningField, FluxKontextConditioningField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.inputs import as_list
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.invocations.metadata import check_base
from invokeclone.graph.invocations.outputs import LatentsOutput
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

if TYPE_CHECKING:
    from invokeclone.components.flux.regions import PromptRegion
    from invokeclone.families.flux2.pipeline import Flux2Task

SCHEDULERS = Literal["euler", "heun", "lcm"]
_SCHEDULER_LABELS = {"euler": "Euler", "heun": "Heun (2nd order)", "lcm": "LCM"}


@invocation(
    "flux2_denoise",
    title="FLUX2 Denoise",
    tags=["image", "flux", "flux2", "klein", "denoise"],
    category="latents",
    version="1.6.0",
    classification=Classification.Prototype,
)
class Flux2DenoiseInvocation(FlowDenoiseInputs, BaseInvocation):
    """Denoise latents with a FLUX.2 model."""

    add_noise: bool = InputField(default=True, description="Add noise for the first step to the latents")
    positive_text_conditioning: FluxConditioningField | list[FluxConditioningField] = InputField(
        description=FieldDescriptions.positive_cond, input=Input.Connection, title="Positive Text Conditioning"
    )
    negative_text_conditioning: FluxConditioningField | None = InputField(
        default=None, description="Negative conditioning; needed if cfg_scale is not 1", input=Input.Connection
    )
    guidance: float = InputField(
        default=4.0,
        ge=0,
        le=20,
        description="Strength of the prompt for dev models, which learned it; klein ignores it",
    )
    cfg_scale: float = InputField(default=1.0, description=FieldDescriptions.cfg_scale, title="CFG Scale")
    width: int = InputField(default=1024, multiple_of=16, description="Width of the image in pixels")
    height: int = InputField(default=1024, multiple_of=16, description="Height of the image in pixels")
    num_steps: int = InputField(default=4, description="Number of steps: 4 for distilled klein models, 28 for others")
    scheduler: SCHEDULERS = InputField(
        default="euler", description="Solver of the steps", ui_choice_labels=_SCHEDULER_LABELS
    )
    seed: int = InputField(default=0, description="Seed of the noise")
    vae: VAEField = InputField(
        description="VAE: statistics of its latents, and encoder of reference images", input=Input.Connection
    )
    kontext_conditioning: FluxKontextConditioningField | list[FluxKontextConditioningField] | None = InputField(
        default=None, description="Reference images", input=Input.Connection, title="Reference Images"
    )

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Return the denoised latents."""
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.engine.loaded import device_of
        from invokeclone.engine.optimizations import apply_optimizations
        from invokeclone.families.flux2 import pipeline
        from invokeclone.families.flux2.lora_keys import TRANSFORMER

        check_base(context.models.get_config(self.transformer.transformer.key), BaseModelType.Flux2)
        task = self._task(context)
        loaded = context.models.load(self.transformer.transformer)
        with loaded as transformer, patch_loras(context, self.transformer.loras, transformer, TRANSFORMER):
            device = device_of(loaded, transformer)
            with apply_optimizations(transformer, context.config.get(), device):
                latents = pipeline.denoise(transformer, task, device, context.util.flux2_step_callback)
        return LatentsOutput.build(context.tensors.save(latents), latents)

    def _task(self, context: InvocationContext) -> "Flux2Task":
        """Return the task; its images are encoded, so that the VAE has left the device when denoising begins."""
        from invokeclone.components.autoencoders.kl_flux2 import statistics_of
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.flux2.pipeline import Flux2Task, join_prompts
        from invokeclone.families.flux2.reference_images import encode_references

        regions = [self._region(context, f, "positive") for f in as_list(self.positive_text_conditioning)]
        if not regions:
            message = "positive_text_conditioning is an empty list: connect at least one prompt"
            raise ValueError(message)
        negative = None
        if self.negative_text_conditioning:
            negative = self._region(context, self.negative_text_conditioning, "negative")
        size = (self.width, self.height)
        images = [
            context.images.get_pil(field.image.image_name, mode="RGB") for field in as_list(self.kontext_conditioning)
        ]
        loaded = context.models.load(self.vae.vae)
        with loaded as vae:
            statistics = statistics_of(vae)
            references = encode_references(vae, images, device_of(loaded, vae))
        return Flux2Task(
            inputs=flow_inputs(self, context, self.num_steps),
            positive=join_prompts(regions, *size, masked=True),
            negative=None if negative is None else join_prompts([negative], *size, masked=False),
            statistics=statistics,
            scheduler=self.scheduler,
            guidance=self.guidance,
            references=references,
        )

    def _region(self, context: InvocationContext, field: FluxConditioningField, side: str) -> "PromptRegion":
        """Return a prompt with its region. Raises ValueError for another family's prompt."""
        from invokeclone.components.flux.regions import PromptRegion
        from invokeclone.families.flux2.conditioning import Flux2ConditioningInfo

        stored = context.conditioning.load(field.conditioning_name)
        info = stored.single(Flux2ConditioningInfo, f"{side}_text_conditioning")
        return PromptRegion(info.embeds, context.tensors.load(field.mask.tensor_name) if field.mask else None)
