"""Denoising with a sampler's inputs; each image has its own seed and denoise node."""

from dataclasses import dataclass, replace
from typing import Any

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.recipes import AppliedControl, DenoiseRun
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import SEEDS, architecture_of, default_of, identifier, is_refiner
from invokeclone.shims.comfyui.node_types import BuildContext
from invokeclone.shims.comfyui.nodes.latents import fit_latent_size
from invokeclone.shims.comfyui.values import EncodedPrompt, EncodedPrompts, Latents, Model


def fold_seed(seed: int) -> int:
    """Return a 64-bit seed folded into 32 bits; smaller seeds stay unchanged."""
    return (seed ^ (seed >> 32)) % SEEDS


@dataclass(frozen=True)
class SamplingTask:
    """The resolved inputs of a sampler, except for the size."""

    model: Model
    positive: EncodedPrompts
    negative: EncodedPrompts | None
    """None: no guidance by a negative prompt."""
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

    @property
    def is_distilled(self) -> bool:
        """Whether guidance is an input of the model, and `cfg` is that of the negative prompt."""
        return architecture_of(self.model.config).capabilities.guidance == "distilled"

    @property
    def guidance(self) -> float:
        """The guidance of the denoise node."""
        if not self.is_distilled:
            return self.cfg
        guidance = self.positive.guidance
        return float(default_of(self.model.config, "cfg_scale")) if guidance is None else guidance

    @property
    def uses_negative(self) -> bool:
        """Whether the negative prompt has an effect."""
        return self.negative is not None and (self.cfg > 1.0 or not self.is_distilled)

    @property
    def prompts(self) -> tuple[EncodedPrompts, ...]:
        """The positive and, if there is one, the negative prompts."""
        return (self.positive,) if self.negative is None else (self.positive, self.negative)


def denoise_latents(context: BuildContext, task: SamplingTask, latents: Latents) -> Latents:
    """Add the nodes that denoise latents, or noise if they are empty. Raises CannotBuild."""
    model, config = task.model, task.model.config
    task = _apply_to_all_steps(context, task)
    _check(context, task, latents)
    if latents.nodes:
        latents.require_space_of(config)
    width, height = _size(config, latents)
    mask = _mask(context, task, latents)
    if mask is not None and model.recipe.reads_masked_image and not task.start:
        context.unused += latents.nodes
        latents = replace(latents, nodes=())
    positive, negative = _prompts(context, task)
    controls = _controls(context, task)
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
            task.guidance,
            task.scheduler,
            cfg_scale=task.cfg if task.is_distilled else 1.0,
            start=task.start,
            end=task.end,
            shift=model.shift,
            latents=source,
            mask=mask,
            add_noise=task.add_noise,
            controls=controls,
            references=(*model.references, *task.positive.references),
            styles=task.positive.styles,
        )
        nodes.append(model.recipe.denoise(context.builder, f"denoise{index}", model.parts, run))
        metadata.append(_metadata(context, index, task, seed, latents, (width, height)))
    return replace(latents, nodes=tuple(nodes), width=width, height=height, config=config, metadata=tuple(metadata))


def _apply_to_all_steps(context: BuildContext, task: SamplingTask) -> SamplingTask:
    """Return the task whose prompts apply to all steps: on each side, those with the longest range of steps."""
    positive = _longest(context, task.positive)
    negative = None if task.negative is None else _longest(context, task.negative)
    return replace(task, positive=positive, negative=negative)


def _longest(context: BuildContext, prompts: EncodedPrompts) -> EncodedPrompts:
    ranges = [text.steps for text in prompts.texts]
    start, end = longest = max(ranges, key=lambda steps: steps[1] - steps[0])
    if (start, end) == (0.0, 1.0) and len(set(ranges)) == 1:
        return prompts
    context.warn(
        f"ConditioningSetTimestepRange: prompts apply to all steps; the one from {start:g} to {end:g} does, without others"
    )
    context.unused += [text.conditioning for text in prompts.texts if text.steps != longest]
    return replace(prompts, texts=tuple(text for text in prompts.texts if text.steps == longest))


def _check(context: BuildContext, task: SamplingTask, latents: Latents) -> None:
    """Refuse what the model's family does not support, and prompts encoded for another base."""
    config = task.model.config
    if latents.nodes and task.start and task.add_noise:
        context.require(config, "image_to_image")
    masked_image = task.positive.masked_image
    if latents.mask is not None or masked_image:
        context.require(config, "inpaint")
    elif not latents.nodes or not task.start:
        context.require(config, "text_to_image")
    if task.positive.controls or task.model.controls:
        context.require(config, "control")
    _check_references(context, task)
    _check_styles(context, task)
    if task.end < 1.0 or not task.add_noise:
        context.require(config, "partial_denoise")
    for text in (text for prompts in task.prompts for text in prompts.texts):
        other = text.clip.model.config
        if other.base != config.base:
            context.refuse(
                f"{config.name} ({config.base}) does not accept prompts encoded by {other.name} ({other.base})"
            )


def _check_references(context: BuildContext, task: SamplingTask) -> None:
    config = task.model.config
    if task.model.references:
        context.require(config, "reference_images")
    if not task.positive.references:
        return
    context.require(config, "reads_references")
    limit = architecture_of(config).capabilities.reference_images
    if len(task.positive.references) > limit:
        context.refuse(f"{config.name} takes at most {limit} reference images, not {len(task.positive.references)}")


def _check_styles(context: BuildContext, task: SamplingTask) -> None:
    if task.positive.styles:
        context.require(task.model.config, "style_images")
    if task.negative is not None and task.uses_negative and task.negative.styles:
        context.refuse(
            "style models apply to positive prompts only: connect the negative prompt without StyleModelApply"
        )


def _controls(context: BuildContext, task: SamplingTask) -> tuple[AppliedControl, ...]:
    """Return the ControlNets of the prompts, and the control LoRA of the model with the image of the prompts."""
    lora, image = task.model.control_lora, task.positive.control_image
    controls = (*task.model.controls, *task.positive.controls)
    if lora is None and image is None:
        return controls
    if lora is None or image is None:
        name = task.model.config.name if lora is None else lora.model["name"]
        context.refuse(
            f"{name}: an image beside the noise needs a control LoRA (LoraLoaderModelOnly), and a control LoRA needs an "
            "image (InstructPixToPixConditioning); models that read an image themselves are not supported"
        )
    return (*controls, AppliedControl(lora.model, image, lora.weight))


def _size(config: ModelConfig, latents: Latents) -> tuple[int, int]:
    width = int(default_of(config, "width")) if latents.width is None else latents.width
    height = int(default_of(config, "height")) if latents.height is None else latents.height
    return (width, height) if latents.nodes else fit_latent_size(width, height, architecture_of(config).grid)


def _prompts(context: BuildContext, task: SamplingTask) -> tuple[NodeOutput, NodeOutput | None]:
    """Return the combined prompts; a negative prompt without effect is left out, or if it is required, the positive."""
    recipe = task.model.recipe
    _warn(context, task)
    positive = recipe.combine_prompts(context.builder, "positive", [text.conditioning for text in task.positive.texts])
    if task.negative is None or not task.uses_negative:
        context.unused += [text.conditioning for text in (task.negative.texts if task.negative else ())]
        return positive, None if task.is_distilled else positive
    negative = [_negative(context, index, text) for index, text in enumerate(task.negative.texts)]
    return positive, recipe.combine_prompts(context.builder, "negative", negative)


def _warn(context: BuildContext, task: SamplingTask) -> None:
    """Warn of what the prompts have and the sampling lacks."""
    used = (task.positive, *((task.negative,) if task.negative and task.uses_negative else ()))
    if any(text.zeroed for prompts in used for text in prompts.texts):
        context.warn("ConditioningZeroOut: prompts cannot be zeroed, an empty prompt is used")
    if task.positive.guidance is not None and not task.is_distilled:
        context.warn(f"FluxGuidance: {task.model.config.name} has no guidance input, cfg is its guidance")


def _negative(context: BuildContext, index: int, text: EncodedPrompt) -> NodeOutput:
    """Return the encoded negative prompt, with the default negative aesthetic score if the model takes one."""
    recipe = text.clip.model.recipe
    if recipe.aesthetic_scores is None or text.details.aesthetic_score is not None:
        return text.conditioning
    details = replace(text.details, aesthetic_score=recipe.aesthetic_scores[1])
    encoders = text.clip.encoders
    return recipe.encode_detailed_prompt(context.builder, f"negative_score{index}", encoders, text.text, details)


def _mask(context: BuildContext, task: SamplingTask, latents: Latents) -> NodeOutput | None:
    mask, image = latents.mask, latents.image
    masked_image = task.positive.masked_image
    if masked_image and task.model.recipe.reads_masked_image:
        mask, image = masked_image.mask, masked_image.image
    if mask is None:
        return None
    keep_mask = mask.to_image(context, "keep_mask", white_changes=False)
    vae = latents.vae.vae if latents.vae else task.model.parts.vae
    return task.model.recipe.denoise_mask(context.builder, "mask", keep_mask, image, vae)


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
    mode = "inpaint" if latents.mask or task.positive.masked_image else "img2img" if latents.nodes else "txt2img"
    recipe, prefix = task.model.recipe, task.model.recipe.metadata_mode
    return context.output(
        f"metadata{index}",
        "core_metadata",
        "metadata",
        generation_mode=None if prefix is None else f"{prefix}{mode}",
        positive_prompt=task.positive.prompt,
        negative_prompt="" if task.negative is None else task.negative.prompt,
        width=size[0],
        height=size[1],
        seed=seed,
        rand_device="cpu",
        model=dict(identifier(task.model.config)),
        steps=task.steps,
        **({"cfg_scale": task.cfg} if task.is_distilled and task.uses_negative else {}),
        **{recipe.guidance_name: task.guidance},
        scheduler=task.scheduler,
        strength=round(1.0 - task.start, 6) if latents.nodes else None,
        clip_skip=max((text.clip.skipped for text in task.positive.texts), default=0),
        loras=[{"model": dict(lora.model), "weight": lora.weight} for lora in task.model.loras] or None,
    )


def _refiner_metadata(task: SamplingTask) -> dict[str, Any]:
    default_scores = task.model.recipe.aesthetic_scores or (None, None)
    sides = (task.positive, task.negative or EncodedPrompts(()))
    scores = [_score(side, default) for side, default in zip(sides, default_scores, strict=True)]
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
