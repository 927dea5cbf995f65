"""Sampler nodes that have all settings of a sampling as inputs."""

from invokeclone.queue.generation import architecture_of, default_of, resolve_scheduler
from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, choice, integer, link, node, number
from invokeclone.shims.comfyui.nodes.denoising import SamplingTask, denoise_latents
from invokeclone.shims.comfyui.nodes.latents import SAMPLES
from invokeclone.shims.comfyui.samplers import SAMPLERS, SCHEDULES, scheduler_for
from invokeclone.shims.comfyui.values import EncodedPrompts, Latents, Model

MAX_STEPS = 10_000
MAX_EXTENDED_STEPS = 1_000
SEED = NodeInput("INT", 0, 0, 2**64 - 1)
STEPS = integer(20, 1, MAX_STEPS, from_model=True)
CFG = number(8.0, 0.0, 100.0, step=0.1, from_model=True)
SAMPLER = choice(*SAMPLERS, from_model=True)
SCHEDULE = choice(*SCHEDULES, from_model=True)
SWITCH = ("enable", "disable")


@node(
    "KSampler",
    "KSampler",
    "sampling",
    {
        "model": link("MODEL"),
        "seed": SEED,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": SAMPLER,
        "scheduler": SCHEDULE,
        "positive": link("CONDITIONING"),
        "negative": link("CONDITIONING"),
        "latent_image": SAMPLES,
        "denoise": number(1.0, 0.0, 1.0),
    },
    "LATENT",
)
def sample(
    context: BuildContext,
    *,
    model: Model,
    seed: int,
    steps: int | None,
    cfg: float | None,
    sampler_name: str | None,
    scheduler: str | None,
    positive: EncodedPrompts,
    negative: EncodedPrompts,
    latent_image: Latents,
    denoise: float,
) -> tuple[Latents]:
    """Denoise latents. With `denoise` below 1, all steps are spent on the last part of a longer schedule."""
    step_count = steps_of(model, steps)
    if not denoise:
        latent_image.require_nodes("denoising by 0")
        return (latent_image,)
    task = SamplingTask(
        model,
        positive,
        negative,
        seed,
        schedule_length(step_count, denoise),
        _cfg(model, cfg),
        scheduler_of(context, model, sampler_name, scheduler),
        start=round(1.0 - denoise, 6),
    )
    return (denoise_latents(context, task, latent_image),)


@node(
    "KSamplerAdvanced",
    "KSampler (Advanced)",
    "sampling",
    {
        "model": link("MODEL"),
        "add_noise": choice(*SWITCH),
        "noise_seed": SEED,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": SAMPLER,
        "scheduler": SCHEDULE,
        "positive": link("CONDITIONING"),
        "negative": link("CONDITIONING"),
        "latent_image": SAMPLES,
        "start_at_step": integer(0, 0, MAX_STEPS),
        "end_at_step": integer(MAX_STEPS, 0, MAX_STEPS),
        "return_with_leftover_noise": choice("disable", "enable"),
    },
    "LATENT",
)
def sample_advanced(
    context: BuildContext,
    *,
    model: Model,
    add_noise: str,
    noise_seed: int,
    steps: int | None,
    cfg: float | None,
    sampler_name: str | None,
    scheduler: str | None,
    positive: EncodedPrompts,
    negative: EncodedPrompts,
    latent_image: Latents,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
) -> tuple[Latents]:
    """Denoise latents over a range of steps. The result of a range that ends early keeps its noise."""
    total = steps_of(model, steps)
    start, end = min(start_at_step, total), min(end_at_step, total)
    if start >= end:
        latent_image.require_nodes("sampling no step")
        return (latent_image,)
    if end < total and return_with_leftover_noise == "disable":
        context.refuse(f"return_with_leftover_noise must be enabled for a range that ends at step {end} of {total}")
    if add_noise == "disable":
        latent_image.require_nodes("sampling without new noise")
    task = SamplingTask(
        model,
        positive,
        negative,
        noise_seed,
        total,
        _cfg(model, cfg),
        scheduler_of(context, model, sampler_name, scheduler),
        start=round(start / total, 6),
        end=round(end / total, 6),
        add_noise=add_noise == "enable",
    )
    return (denoise_latents(context, task, latent_image),)


def schedule_length(steps: int, denoise: float) -> int:
    """Return the length of the schedule whose last part has `steps` steps.

    It is extended up to MAX_EXTENDED_STEPS only, because some samplers cannot run more, unless `steps` is longer itself.
    """
    limit = MAX_STEPS if steps > MAX_EXTENDED_STEPS else MAX_EXTENDED_STEPS
    return int(min(limit, steps / denoise))


def steps_of(model: Model, steps: int | None) -> int:
    """Return the number of steps; for None the model's."""
    return int(default_of(model.config, "steps")) if steps is None else steps


def _cfg(model: Model, cfg: float | None) -> float:
    if cfg is None and architecture_of(model.config).capabilities.guidance == "distilled":
        return 1.0
    return float(default_of(model.config, "cfg_scale")) if cfg is None else cfg


def scheduler_of(context: BuildContext, model: Model, sampler: str | None, schedule: str | None) -> str:
    """Return the scheduler for ComfyUI's names, with a warning if the model lacks it; for None the model's."""
    if sampler is None:
        return resolve_scheduler(model.config, str(default_of(model.config, "scheduler")))
    requested = scheduler_for(sampler, schedule or "normal")
    scheduler = resolve_scheduler(model.config, requested)
    if scheduler != requested:
        context.warn(f"{model.config.name} has no {requested} ({sampler}, {schedule}): {scheduler} is used")
    return scheduler
