"""The samplers: each picture gets noise of a seed of its own and a denoise node."""

from dataclasses import dataclass, replace

from invokeclone.queue.generation import SEEDS, identifier
from invokeclone.shims.comfyui.catalog import setting, usual_of
from invokeclone.shims.comfyui.nodes.latents import SAMPLES, fitting
from invokeclone.shims.comfyui.samplers import SAMPLERS, SCHEDULES, scheduler_for
from invokeclone.shims.comfyui.values import Conditioning, Latents, Model
from invokeclone.shims.comfyui.vocabulary import Input, Lead, Place, choice, integer, link, node, number

MOST_STEPS = 1000
SEED = Input("INT", 0, 0, 2**64 - 1)
STEPS = integer(20, 1, MOST_STEPS, from_model=True)
CFG = number(8.0, 1.0, 100.0, step=0.1, from_model=True)
SAMPLER = choice(*SAMPLERS, from_model=True)
SCHEDULE = choice(*SCHEDULES, from_model=True)
SWITCH = ("enable", "disable")


def folded(seed: int) -> int:
    """Return a seed of 64 bits in 32; small ones stay as they are."""
    return (seed ^ (seed >> 32)) % SEEDS


@dataclass(frozen=True)
class Task:
    """What a sampler does; nothing is left open but the size."""

    model: Model
    positive: Conditioning
    negative: Conditioning
    seed: int
    steps: int
    """Of the whole schedule."""
    cfg: float
    scheduler: str
    start: float = 0.0
    """Share of the schedule that is left out at the beginning."""
    end: float = 1.0
    noisy: bool = True
    """Whether noise is added; if not, the latents have theirs."""


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
    place: Place,
    *,
    model: Model,
    seed: int,
    steps: int | None,
    cfg: float | None,
    sampler_name: str | None,
    scheduler: str | None,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latents,
    denoise: float,
) -> tuple[Latents]:
    """Denoise latents. With `denoise` below 1 all steps go to the last part of a longer schedule."""
    wanted = _steps(model, steps)
    if not denoise:
        latent_image.filled("denoising by 0")
        return (latent_image,)
    task = Task(
        model,
        positive,
        negative,
        seed,
        int(min(MOST_STEPS, wanted / denoise)),
        _cfg(model, cfg),
        _scheduler(model, sampler_name, scheduler),
        start=round(1.0 - denoise, 6),
    )
    return (_sampled(place, task, latent_image),)


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
        "start_at_step": integer(0, 0, 10000),
        "end_at_step": integer(10000, 0, 10000),
        "return_with_leftover_noise": choice("disable", "enable"),
    },
    "LATENT",
)
def sample_advanced(
    place: Place,
    *,
    model: Model,
    add_noise: str,
    noise_seed: int,
    steps: int | None,
    cfg: float | None,
    sampler_name: str | None,
    scheduler: str | None,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latents,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
) -> tuple[Latents]:
    """Denoise latents over some steps of a schedule. What ends before the last step keeps its noise."""
    total = _steps(model, steps)
    start, end = min(start_at_step, total), min(end_at_step, total)
    if start >= end:
        latent_image.filled("sampling no step")
        return (latent_image,)
    if end < total and return_with_leftover_noise == "disable":
        place.refuse(
            f"return_with_leftover_noise: what ends at step {end} of {total} can only be returned with its noise"
        )
    if add_noise == "disable":
        latent_image.filled("sampling without new noise")
    task = Task(
        model,
        positive,
        negative,
        noise_seed,
        total,
        _cfg(model, cfg),
        _scheduler(model, sampler_name, scheduler),
        start=round(start / total, 6),
        end=round(end / total, 6),
        noisy=add_noise == "enable",
    )
    return (_sampled(place, task, latent_image),)


def _steps(model: Model, steps: int | None) -> int:
    return setting(model.config, "steps", usual_of(model.config).steps) if steps is None else steps


def _cfg(model: Model, cfg: float | None) -> float:
    return setting(model.config, "cfg_scale", usual_of(model.config).cfg_scale) if cfg is None else cfg


def _scheduler(model: Model, sampler: str | None, schedule: str | None) -> str:
    if sampler is None:
        return str(setting(model.config, "scheduler", usual_of(model.config).scheduler))
    return scheduler_for(sampler, schedule or "normal")


def _sampled(place: Place, task: Task, latents: Latents) -> Latents:
    config = task.model.config
    side = usual_of(config).side
    width = setting(config, "width", side) if latents.width is None else latents.width
    height = setting(config, "height", side) if latents.height is None else latents.height
    width, height = (width, height) if latents.nodes else fitting(width, height)
    mask = _mask(place, task, latents)
    sides = {"positive": task.positive, "negative": task.negative}
    guides = {f"{name}_conditioning": _guide(place, name, given) for name, given in sides.items()}
    made, metadata = [], []
    for index in range(latents.count):
        seed = (folded(task.seed) + index) % SEEDS
        source = latents.nodes[index] if latents.nodes else None
        made.append(
            place.add(
                f"denoise{index}",
                "denoise_latents",
                unet=task.model.unet,
                steps=task.steps,
                cfg_scale=task.cfg,
                scheduler=task.scheduler,
                denoising_start=task.start,
                denoising_end=task.end,
                noise=_noise(place, index, seed, source, (width, height)) if task.noisy else None,
                latents=Lead(f"{source}.latents") if source else None,
                denoise_mask=mask,
                **guides,
            )
        )
        metadata.append(_metadata(place, index, task, seed, latents, (width, height)))
    return replace(latents, nodes=tuple(made), width=width, height=height, metadata=tuple(metadata))


def _guide(place: Place, side: str, given: Conditioning) -> Lead:
    collect = place.add(side, "collect")
    for text in given.texts:
        place.drawing.connect(text.conditioning.place, f"{collect}.item")
    return Lead(f"{collect}.collection")


def _noise(place: Place, index: int, seed: int, source: str | None, size: tuple[int, int]) -> Lead:
    """Draw noise of the size of the latents that it goes to."""
    width, height = (Lead(f"{source}.width"), Lead(f"{source}.height")) if source else size
    noise = place.add(f"noise{index}", "noise", seed=seed, use_cpu=True, width=width, height=height)
    return Lead(f"{noise}.noise")


def _mask(place: Place, task: Task, latents: Latents) -> Lead | None:
    if latents.mask is None:
        return None
    mask = place.add(
        "mask",
        "create_denoise_mask",
        vae=latents.vae or task.model.vae,
        image=latents.image,
        mask=latents.mask.drawn(place, "keep", white_changes=False),
        fp32=True,
    )
    return Lead(f"{mask}.denoise_mask")


def _metadata(place: Place, index: int, task: Task, seed: int, latents: Latents, size: tuple[int, int]) -> Lead:
    node_id = place.add(
        f"metadata{index}",
        "core_metadata",
        generation_mode="inpaint" if latents.mask else "img2img" if latents.nodes else "txt2img",
        positive_prompt=task.positive.prompt,
        negative_prompt=task.negative.prompt,
        width=size[0],
        height=size[1],
        seed=seed,
        rand_device="cpu",
        model=dict(identifier(task.model.config)),
        steps=task.steps,
        cfg_scale=task.cfg,
        scheduler=task.scheduler,
        strength=round(1.0 - task.start, 6) if latents.nodes else None,
        clip_skip=max((text.clip.skipped for text in task.positive.texts), default=0),
    )
    return Lead(f"{node_id}.metadata")
