"""Nodes for initial noise and the scheduler name, for all families."""

from typing import Literal

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import LATENT_SCALE_FACTOR, NoiseOutput, SchedulerOutput, latents_field
from invokeclone.graph.vocabulary.architectures import LatentSpace
from invokeclone.graph.vocabulary.fields import FieldDescriptions, InputField
from invokeclone.graph.vocabulary.hints import UIType
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.models.identify import registry

NOISE_TYPES = Literal["SD", "FLUX", "FLUX.2", "SD3", "CogView4", "Z-Image", "Anima"]
SEED_MAX = 2**32 - 1


@invocation("noise", title="Create Latent Noise", tags=["latents", "noise"], category="latents", version="1.1.0")
class NoiseInvocation(BaseInvocation):
    """Generate the noise that an image is created from."""

    noise_type: NOISE_TYPES = InputField(default="SD", description="The latent space of the noise")
    seed: int = InputField(default=0, ge=0, le=SEED_MAX, description=FieldDescriptions.seed)
    width: int = InputField(default=512, multiple_of=LATENT_SCALE_FACTOR, gt=0, description=FieldDescriptions.width)
    height: int = InputField(default=512, multiple_of=LATENT_SCALE_FACTOR, gt=0, description=FieldDescriptions.height)
    use_cpu: bool = InputField(
        default=True, description="Generate the noise on the CPU, which gives the same result on every machine"
    )

    def invoke(self, context: InvocationContext) -> NoiseOutput:
        """Generate and save the noise."""
        import torch

        from invokeclone.engine import devices, latents

        settings, space = context.config.get(), latent_space(self.noise_type)
        compute_device = devices.choose_torch_device(settings)
        dtype = torch.float32 if space.float32_noise else devices.choose_dtype(compute_device, settings.precision)
        device = devices.CPU_DEVICE if self.use_cpu else compute_device
        drawn = latents.noise(self.seed, space.noise_shape(self.width, self.height), device, dtype).cpu()
        size = {"width": self.width, "height": self.height}
        return NoiseOutput(noise=latents_field(context.tensors.save(drawn), self.seed), **size)


def latent_space(noise_type: str) -> LatentSpace:
    """Return the latent space of an architecture's `noise_type`."""
    return next(
        architecture.latent_space
        for architecture in registry.architectures().values()
        if architecture.noise_type == noise_type
    )


@invocation("scheduler", title="Scheduler", tags=["scheduler"], category="latents", version="1.0.0")
class SchedulerInvocation(BaseInvocation):
    """Select a scheduler."""

    scheduler: SCHEDULER_NAME_VALUES = InputField(
        default="euler", description=FieldDescriptions.scheduler, ui_type=UIType.Scheduler
    )

    def invoke(self, context: InvocationContext) -> SchedulerOutput:
        """Return the name."""
        return SchedulerOutput(scheduler=self.scheduler)
