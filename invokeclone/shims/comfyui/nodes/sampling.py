"""The samplers: each image gets a seed of its own and a denoise node."""

from dataclasses import dataclass, replace
from typing import Any

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.recipes import DenoiseRun
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import (
    SEEDS,
    architecture_of,
    default_of,
    identifier,
    is_refiner,
    supported_scheduler,
)
from invokeclone.shims.comfyui.nodes.latents import SAMPLES, fitting
from invokeclone.shims.comfyui.samplers import SAMPLERS, SCHEDULES, scheduler_for
from invokeclone.shims.comfyui.values import EncodedPrompts, Latents, Model, Text
from invokeclone.shims.comfyui.vocabulary import BuildContext, NodeInput, choice, integer, link, node, number

MAX_STEPS = 1000
SEED = NodeInput("INT", 0, 0, 2**64 - 1)
STEPS = integer(20, 1, MAX_STEPS, from_model=True)
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
    positive: EncodedPrompts
    negative: EncodedPrompts
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
    place: BuildContext,
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
        int(min(MAX_STEPS, wanted / denoise)),
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
    place: BuildContext,
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
    return int(default_of(model.config, "steps")) if steps is None else steps


def _cfg(model: Model, cfg: float | None) -> float:
    return float(default_of(model.config, "cfg_scale")) if cfg is None else cfg


def _scheduler(model: Model, sampler: str | None, schedule: str | None) -> str:
    if sampler is None:
        return supported_scheduler(model.config, str(default_of(model.config, "scheduler")))
    return supported_scheduler(model.config, scheduler_for(sampler, schedule or "normal"))


def _sampled(place: BuildContext, task: Task, latents: Latents) -> Latents:
    model, config = task.model, task.model.config
    _check(place, task, latents)
    width, height = _size(config, latents)
    mask = _mask(place, task, latents)
    positive, negative = _prompts(place, task)
    made, metadata = [], []
    for index in range(latents.count):
        seed = (folded(task.seed) + index) % SEEDS
        source = latents.nodes[index] if latents.nodes else None
        run = DenoiseRun(
            positive,
            negative,
            seed,
            NodeOutput(source.node_id, "width") if source else width,
            NodeOutput(source.node_id, "height") if source else height,
            task.steps,
            task.cfg,
            task.scheduler,
            start=task.start,
            end=task.end,
            latents=source,
            mask=mask,
            add_noise=task.noisy,
            controls=task.positive.controls,
            references=model.references,
        )
        made.append(model.recipe.denoise(place.builder, f"denoise{index}", model.parts, run))
        metadata.append(_metadata(place, index, task, seed, latents, (width, height)))
    return replace(latents, nodes=tuple(made), width=width, height=height, metadata=tuple(metadata))


def _check(place: BuildContext, task: Task, latents: Latents) -> None:
    """Refuse what the model's family cannot do, and prompts that another family's encoder has encoded."""
    config = task.model.config
    if latents.nodes and task.start and task.noisy:
        place.require(config, "image_to_image")
    if latents.mask is not None:
        place.require(config, "inpaint")
    if task.positive.controls:
        place.require(config, "control")
    if task.model.references:
        place.require(config, "reference_images")
    if task.end < 1.0 or not task.noisy:
        place.require(config, "partial_denoise")
    for text in (*task.positive.texts, *task.negative.texts):
        other = text.clip.model.config
        if other.base != config.base:
            place.refuse(
                f"{config.name} ({config.base}) does not take prompts that {other.name} ({other.base}) encodes"
            )


def _size(config: ModelConfig, latents: Latents) -> tuple[int, int]:
    width = int(default_of(config, "width")) if latents.width is None else latents.width
    height = int(default_of(config, "height")) if latents.height is None else latents.height
    return (width, height) if latents.nodes else fitting(width, height, architecture_of(config).grid)


def _prompts(place: BuildContext, task: Task) -> tuple[NodeOutput, NodeOutput]:
    recipe = task.model.recipe
    negative = [_negative(place, index, text) for index, text in enumerate(task.negative.texts)]
    return (
        recipe.combine_prompts(place.builder, "positive", [text.conditioning for text in task.positive.texts]),
        recipe.combine_prompts(place.builder, "negative", negative),
    )


def _negative(place: BuildContext, index: int, text: Text) -> NodeOutput:
    """Return a negative prompt as it is encoded; where models are told an aesthetic score, with the one of negatives."""
    recipe = text.clip.model.recipe
    if recipe.aesthetic_scores is None or text.details.aesthetic_score is not None:
        return text.conditioning
    details = replace(text.details, aesthetic_score=recipe.aesthetic_scores[1])
    encoders = text.clip.encoders
    return recipe.encode_detailed_prompt(place.builder, f"negative_score{index}", encoders, text.text, details)


def _mask(place: BuildContext, task: Task, latents: Latents) -> NodeOutput | None:
    if latents.mask is None:
        return None
    keep = latents.mask.drawn(place, "keep", white_changes=False)
    vae = latents.vae.vae if latents.vae else task.model.parts.vae
    return task.model.recipe.denoise_mask(place.builder, "mask", keep, latents.image, vae)


def _metadata(
    place: BuildContext, index: int, task: Task, seed: int, latents: Latents, size: tuple[int, int]
) -> NodeOutput:
    """Record how latents are made; what a refiner does to another model's is added to what that one's says."""
    first = latents.metadata[index] if latents.metadata else None
    if first is not None and not task.noisy and is_refiner(task.model.config):
        own = {"id", "type", "is_intermediate", "use_cache"}
        recorded = {name: value for name, value in place.builder.nodes[first.node_id].items() if name not in own}
        return place.output(f"metadata{index}", "core_metadata", "metadata", **recorded | _recorded_refiner(task))
    mode, prefix = (
        "inpaint" if latents.mask else "img2img" if latents.nodes else "txt2img",
        task.model.recipe.metadata_mode,
    )
    return place.output(
        f"metadata{index}",
        "core_metadata",
        "metadata",
        generation_mode=None if prefix is None else f"{prefix}{mode}",
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
        loras=[{"model": dict(lora.model), "weight": lora.weight} for lora in task.model.loras] or None,
    )


def _recorded_refiner(task: Task) -> dict[str, Any]:
    usual = task.model.recipe.aesthetic_scores or (None, None)
    scores = [_score(side, default) for side, default in zip((task.positive, task.negative), usual, strict=True)]
    return {
        "refiner_model": dict(identifier(task.model.config)),
        "refiner_steps": task.steps,
        "refiner_cfg_scale": task.cfg,
        "refiner_scheduler": task.scheduler,
        "refiner_positive_aesthetic_score": scores[0],
        "refiner_negative_aesthetic_score": scores[1],
        "refiner_start": task.start,
    }


def _score(side: EncodedPrompts, default: float | None) -> float | None:
    """Return the first aesthetic score that prompts state."""
    stated = [text.details.aesthetic_score for text in side.texts if text.details.aesthetic_score is not None]
    return stated[0] if stated else default
