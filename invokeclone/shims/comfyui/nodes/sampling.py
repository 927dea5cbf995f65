"""Sampler nodes; each image has its own seed and denoise node."""

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
    resolve_scheduler,
)
from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, choice, integer, link, node, number
from invokeclone.shims.comfyui.nodes.latents import SAMPLES, fit_latent_size
from invokeclone.shims.comfyui.samplers import SAMPLERS, SCHEDULES, scheduler_for
from invokeclone.shims.comfyui.values import EncodedPrompt, EncodedPrompts, Latents, Model

MAX_STEPS = 10_000
MAX_EXTENDED_STEPS = 1_000
SEED = NodeInput("INT", 0, 0, 2**64 - 1)
STEPS = integer(20, 1, MAX_STEPS, from_model=True)
CFG = number(8.0, 0.0, 100.0, step=0.1, from_model=True)
SAMPLER = choice(*SAMPLERS, from_model=True)
SCHEDULE = choice(*SCHEDULES, from_model=True)
SWITCH = ("enable", "disable")


def fold_seed(seed: int) -> int:
    """Return a 64-bit seed folded into 32 bits; smaller seeds stay unchanged."""
    return (seed ^ (seed >> 32)) % SEEDS


@dataclass(frozen=True)
class SamplingTask:
    """The resolved inputs of a sampler, except for the size."""

    model: Model
    positive: EncodedPrompts
    negative: EncodedPrompts
    seed: int
    steps: int
    """Of the whole schedule."""
    cfg: float
    scheduler: str
    start: float = 0.0
    """Share of the schedule that is skipped at the beginning."""
    end: float = 1.0
    add_noise: bool = True
    """Whether noise is added; if not, the latents already contain it."""


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
    step_count = _steps(model, steps)
    if not denoise:
        latent_image.require_nodes("denoising by 0")
        return (latent_image,)
    task = SamplingTask(
        model,
        positive,
        negative,
        seed,
        _schedule_length(step_count, denoise),
        _cfg(model, cfg),
        _scheduler(model, sampler_name, scheduler),
        start=round(1.0 - denoise, 6),
    )
    return (_denoise(context, task, latent_image),)


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
    total = _steps(model, steps)
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
        _scheduler(model, sampler_name, scheduler),
        start=round(start / total, 6),
        end=round(end / total, 6),
        add_noise=add_noise == "enable",
    )
    return (_denoise(context, task, latent_image),)


def _schedule_length(steps: int, denoise: float) -> int:
    """Return the length of the schedule whose last part has `steps` steps.

    It is extended up to MAX_EXTENDED_STEPS only, because some samplers cannot run more, unless `steps` is longer itself.
    """
    limit = MAX_STEPS if steps > MAX_EXTENDED_STEPS else MAX_EXTENDED_STEPS
    return int(min(limit, steps / denoise))


def _steps(model: Model, steps: int | None) -> int:
    return int(default_of(model.config, "steps")) if steps is None else steps


def _cfg(model: Model, cfg: float | None) -> float:
    return float(default_of(model.config, "cfg_scale")) if cfg is None else cfg


def _scheduler(model: Model, sampler: str | None, schedule: str | None) -> str:
    if sampler is None:
        return resolve_scheduler(model.config, str(default_of(model.config, "scheduler")))
    return resolve_scheduler(model.config, scheduler_for(sampler, schedule or "normal"))


def _denoise(context: BuildContext, task: SamplingTask, latents: Latents) -> Latents:
    model, config = task.model, task.model.config
    _check(context, task, latents)
    width, height = _size(config, latents)
    mask = _mask(context, task, latents)
    positive, negative = _prompts(context, task)
    nodes, metadata = [], []
    for index in range(latents.count):
        seed = (fold_seed(task.seed) + index) % SEEDS
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
            add_noise=task.add_noise,
            controls=task.positive.controls,
            references=model.references,
        )
        nodes.append(model.recipe.denoise(context.builder, f"denoise{index}", model.parts, run))
        metadata.append(_metadata(context, index, task, seed, latents, (width, height)))
    return replace(latents, nodes=tuple(nodes), width=width, height=height, metadata=tuple(metadata))


def _check(context: BuildContext, task: SamplingTask, latents: Latents) -> None:
    """Refuse what the model's family does not support, and prompts encoded for another base."""
    config = task.model.config
    if latents.nodes and task.start and task.add_noise:
        context.require(config, "image_to_image")
    if latents.mask is not None:
        context.require(config, "inpaint")
    if task.positive.controls:
        context.require(config, "control")
    if task.model.references:
        context.require(config, "reference_images")
    if task.end < 1.0 or not task.add_noise:
        context.require(config, "partial_denoise")
    for text in (*task.positive.texts, *task.negative.texts):
        other = text.clip.model.config
        if other.base != config.base:
            context.refuse(
                f"{config.name} ({config.base}) does not accept prompts encoded by {other.name} ({other.base})"
            )


def _size(config: ModelConfig, latents: Latents) -> tuple[int, int]:
    width = int(default_of(config, "width")) if latents.width is None else latents.width
    height = int(default_of(config, "height")) if latents.height is None else latents.height
    return (width, height) if latents.nodes else fit_latent_size(width, height, architecture_of(config).grid)


def _prompts(context: BuildContext, task: SamplingTask) -> tuple[NodeOutput, NodeOutput]:
    recipe = task.model.recipe
    negative = [_negative(context, index, text) for index, text in enumerate(task.negative.texts)]
    return (
        recipe.combine_prompts(context.builder, "positive", [text.conditioning for text in task.positive.texts]),
        recipe.combine_prompts(context.builder, "negative", negative),
    )


def _negative(context: BuildContext, index: int, text: EncodedPrompt) -> NodeOutput:
    """Return the encoded negative prompt, with the default negative aesthetic score if the model takes one."""
    recipe = text.clip.model.recipe
    if recipe.aesthetic_scores is None or text.details.aesthetic_score is not None:
        return text.conditioning
    details = replace(text.details, aesthetic_score=recipe.aesthetic_scores[1])
    encoders = text.clip.encoders
    return recipe.encode_detailed_prompt(context.builder, f"negative_score{index}", encoders, text.text, details)


def _mask(context: BuildContext, task: SamplingTask, latents: Latents) -> NodeOutput | None:
    if latents.mask is None:
        return None
    keep_mask = latents.mask.to_image(context, "keep_mask", white_changes=False)
    vae = latents.vae.vae if latents.vae else task.model.parts.vae
    return task.model.recipe.denoise_mask(context.builder, "mask", keep_mask, latents.image, vae)


def _metadata(
    context: BuildContext, index: int, task: SamplingTask, seed: int, latents: Latents, size: tuple[int, int]
) -> NodeOutput:
    """Add the metadata node of latents; a refiner extends the metadata of the model before it."""
    first = latents.metadata[index] if latents.metadata else None
    if first is not None and not task.add_noise and is_refiner(task.model.config):
        node_fields = {"id", "type", "is_intermediate", "use_cache"}
        first_fields = {
            name: value for name, value in context.builder.nodes[first.node_id].items() if name not in node_fields
        }
        return context.output(f"metadata{index}", "core_metadata", "metadata", **first_fields | _refiner_metadata(task))
    mode, prefix = (
        "inpaint" if latents.mask else "img2img" if latents.nodes else "txt2img",
        task.model.recipe.metadata_mode,
    )
    return context.output(
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


def _refiner_metadata(task: SamplingTask) -> dict[str, Any]:
    default_scores = task.model.recipe.aesthetic_scores or (None, None)
    scores = [
        _score(side, default) for side, default in zip((task.positive, task.negative), default_scores, strict=True)
    ]
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
    """Return the first aesthetic score of the prompts, or the default."""
    scores = [text.details.aesthetic_score for text in side.texts if text.details.aesthetic_score is not None]
    return scores[0] if scores else default
