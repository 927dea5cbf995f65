"""Samplers whose settings come from several nodes: noise, guider, sampler and sigmas."""

from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, choice, integer, link, node, number
from invokeclone.shims.comfyui.nodes.denoising import SamplingTask, denoise_latents
from invokeclone.shims.comfyui.nodes.latents import SAMPLES
from invokeclone.shims.comfyui.nodes.sampling import SEED, schedule_length, scheduler_of
from invokeclone.shims.comfyui.samplers import SAMPLERS, SCHEDULES
from invokeclone.shims.comfyui.values import EncodedPrompts, Guider, Latents, Model, Noise, Sigmas

CATEGORY = "sampling/custom_sampling"
MAX_STEPS = 10_000
CFG = number(8.0, 0.0, 100.0, step=0.1)
CONDITIONING = link("CONDITIONING")
RESULTS = (("LATENT", "output"), ("LATENT", "denoised_output"))


@node("RandomNoise", "RandomNoise", f"{CATEGORY}/noise", {"noise_seed": SEED}, "NOISE")
def random_noise(_context: BuildContext, *, noise_seed: int) -> tuple[Noise]:
    """Make noise from a seed."""
    return (Noise(noise_seed),)


@node("DisableNoise", "DisableNoise", f"{CATEGORY}/noise", {}, "NOISE")
def no_noise(_context: BuildContext) -> tuple[Noise]:
    """Add no noise: the latents already contain it."""
    return (Noise(None),)


@node(
    "BasicGuider",
    "BasicGuider",
    f"{CATEGORY}/guiders",
    {"model": link("MODEL"), "conditioning": CONDITIONING},
    "GUIDER",
)
def basic_guider(_context: BuildContext, *, model: Model, conditioning: EncodedPrompts) -> tuple[Guider]:
    """Guide by a prompt, without a negative one."""
    return (Guider(model, conditioning, None, 1.0),)


@node(
    "CFGGuider",
    "CFGGuider",
    f"{CATEGORY}/guiders",
    {"model": link("MODEL"), "positive": CONDITIONING, "negative": CONDITIONING, "cfg": CFG},
    "GUIDER",
)
def cfg_guider(
    _context: BuildContext, *, model: Model, positive: EncodedPrompts, negative: EncodedPrompts, cfg: float
) -> tuple[Guider]:
    """Guide by a positive and a negative prompt."""
    return (Guider(model, positive, negative, cfg),)


@node(
    "KSamplerSelect",
    "KSamplerSelect",
    f"{CATEGORY}/samplers",
    {"sampler_name": choice(*SAMPLERS)},
    "SAMPLER",
)
def select_sampler(_context: BuildContext, *, sampler_name: str) -> tuple[str]:
    """Select a sampler."""
    return (sampler_name,)


# Sigmas


@node(
    "BasicScheduler",
    "BasicScheduler",
    f"{CATEGORY}/schedulers",
    {
        "model": link("MODEL"),
        "scheduler": choice(*SCHEDULES),
        "steps": integer(20, 1, MAX_STEPS),
        "denoise": number(1.0, 0.0, 1.0),
    },
    "SIGMAS",
)
def schedule(
    _context: BuildContext,
    *,
    model: Model,  # noqa: ARG001  (the sampler's model determines the noise levels)
    scheduler: str,
    steps: int,
    denoise: float,
) -> tuple[Sigmas]:
    """Make the noise levels of a schedule. With `denoise` below 1, they are the last part of a longer schedule."""
    if not denoise:
        return (Sigmas(scheduler, steps, start=1.0),)
    return (Sigmas(scheduler, schedule_length(steps, denoise), start=round(1.0 - denoise, 6)),)


@node(
    "Flux2Scheduler",
    "Flux2Scheduler",
    f"{CATEGORY}/schedulers",
    {"steps": integer(20, 1, MAX_STEPS), "width": integer(1024, 16, 16_384), "height": integer(1024, 16, 16_384)},
    "SIGMAS",
)
def schedule_by_size(
    _context: BuildContext,
    *,
    steps: int,
    width: int,  # noqa: ARG001  (the sampled latents' is used)
    height: int,  # noqa: ARG001
) -> tuple[Sigmas]:
    """Make the noise levels of FLUX.2's schedule; the size is that of the sampled latents."""
    return (Sigmas("simple", steps),)


@node(
    "SplitSigmas",
    "SplitSigmas",
    f"{CATEGORY}/sigmas",
    {"sigmas": link("SIGMAS"), "step": integer(0, 0, MAX_STEPS)},
    ("SIGMAS", "high_sigmas"),
    ("SIGMAS", "low_sigmas"),
)
def split(_context: BuildContext, *, sigmas: Sigmas, step: int) -> tuple[Sigmas, Sigmas]:
    """Split noise levels after a number of steps."""
    return sigmas.split(step)


@node(
    "SplitSigmasDenoise",
    "SplitSigmasDenoise",
    f"{CATEGORY}/sigmas",
    {"sigmas": link("SIGMAS"), "denoise": number(1.0, 0.0, 1.0)},
    ("SIGMAS", "high_sigmas"),
    ("SIGMAS", "low_sigmas"),
)
def split_by_denoise(_context: BuildContext, *, sigmas: Sigmas, denoise: float) -> tuple[Sigmas, Sigmas]:
    """Split noise levels before the last part, given as a share of the steps."""
    return sigmas.split(sigmas.step_count - round(sigmas.step_count * denoise))


# Samplers


@node(
    "SamplerCustomAdvanced",
    "SamplerCustomAdvanced",
    CATEGORY,
    {
        "noise": link("NOISE"),
        "guider": link("GUIDER"),
        "sampler": link("SAMPLER"),
        "sigmas": link("SIGMAS"),
        "latent_image": SAMPLES,
    },
    *RESULTS,
)
def sample_advanced(
    context: BuildContext, *, noise: Noise, guider: Guider, sampler: str, sigmas: Sigmas, latent_image: Latents
) -> tuple[Latents, Latents]:
    """Denoise latents. `denoised_output` is empty if the noise levels end before the last one."""
    return _sample(context, noise, guider, sampler, sigmas, latent_image)


@node(
    "SamplerCustom",
    "SamplerCustom",
    CATEGORY,
    {
        "model": link("MODEL"),
        "add_noise": NodeInput("BOOLEAN", default=True),
        "noise_seed": SEED,
        "cfg": CFG,
        "positive": CONDITIONING,
        "negative": CONDITIONING,
        "sampler": link("SAMPLER"),
        "sigmas": link("SIGMAS"),
        "latent_image": SAMPLES,
    },
    *RESULTS,
)
def sample(
    context: BuildContext,
    *,
    model: Model,
    add_noise: bool,
    noise_seed: int,
    cfg: float,
    positive: EncodedPrompts,
    negative: EncodedPrompts,
    sampler: str,
    sigmas: Sigmas,
    latent_image: Latents,
) -> tuple[Latents, Latents]:
    """Denoise latents. `denoised_output` is empty if the noise levels end before the last one."""
    noise = Noise(noise_seed if add_noise else None)
    return _sample(context, noise, Guider(model, positive, negative, cfg), sampler, sigmas, latent_image)


def _sample(
    context: BuildContext, noise: Noise, guider: Guider, sampler: str, sigmas: Sigmas, latents: Latents
) -> tuple[Latents, Latents]:
    if not sigmas.step_count:
        latents.require_nodes("sampling no step")
        return latents, latents
    if noise.seed is None:
        latents.require_nodes("sampling without new noise")
    task = SamplingTask(
        guider.model,
        guider.positive,
        guider.negative,
        noise.seed or 0,
        sigmas.steps,
        guider.cfg,
        scheduler_of(context, guider.model, sampler, sigmas.schedule),
        start=sigmas.start,
        end=sigmas.end,
        add_noise=noise.seed is not None,
    )
    result = denoise_latents(context, task, latents)
    return result, result if sigmas.end == 1.0 else Latents()
