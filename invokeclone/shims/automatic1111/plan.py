"""What a request means: what is refused by name, and every setting that can be resolved before images are read."""

from dataclasses import dataclass, replace
from typing import Any

from invokeclone.graph.recipes import HiresFix
from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.queue.generation import GenerationRequest, RefinerChoice, ResolvedRequest
from invokeclone.shims import embeddings
from invokeclone.shims.automatic1111 import controlnet
from invokeclone.shims.automatic1111 import options as options_of
from invokeclone.shims.automatic1111.options import Options
from invokeclone.shims.automatic1111.prompts import parse, take_loras
from invokeclone.shims.automatic1111.samplers import Sampling, sampling
from invokeclone.shims.automatic1111.schemas import Generate, ImageToImage, TextToImage
from invokeclone.shims.dialect import Refused, check_images, check_prompt
from invokeclone.users.current import User

USUAL_STRENGTH = {TextToImage: 0.7, ImageToImage: 0.75}
LATENT = "Latent"
UPSCALERS = ("None", "Lanczos", "Nearest")
NOTHING = frozenset({"", "none"})
SAME = frozenset({"", "none", "use same checkpoint", "use same sampler", "use same scheduler"})
LATENT_RESIZE = 3
LATENT_NOTHING = 3
MOST_STEPS = 1000
MOST_SCALE = 16
GRID_SLACK = 8
SWITCH_AT = 0.8
"""When a refiner takes over, where the client does not say."""


@dataclass(frozen=True)
class GenerationPlan:
    """A request with nothing left open but the pictures that it begins with."""

    asked: Generate
    resolved: ResolvedRequest
    sampling: Sampling
    options: Options
    strength: float
    hires: str | None = None
    """The upscaler of a second run."""
    hires_steps: int = 0
    """Steps of it, as A1111 counts them."""

    @property
    def count(self) -> int:
        """Return how many pictures."""
        return len(self.resolved.seeds)

    @property
    def subseeds(self) -> list[int]:
        """Return the seed of the variation of each; without one they count on from the one that was given."""
        if self.resolved.variation_seeds:
            return list(self.resolved.variation_seeds)
        first = self.asked.subseed if self.asked.subseed >= 0 else self.resolved.seeds[0]
        return [(first + number) % generation.SEEDS for number in range(self.count)]


async def planned(resources: Resources, user: User, asked: Generate) -> GenerationPlan:
    """Resolve what is left open. Raises Refused and what `generation.resolve` raises; nothing is enqueued."""
    refuse_unsupported(asked)
    asked = _with_first_pass(asked)
    count = asked.batch_size * asked.n_iter
    limits = resources.settings.limits
    check_images(count, limits, "batch_size")
    check_prompt(asked.prompt, limits, "prompt")
    check_prompt(asked.negative_prompt, limits, "negative_prompt")
    async with resources.database.read() as connection:
        kept = await options_of.load(connection, user)
        options = await options_of.changed(connection, kept, asked.override_settings)
        config = await generation.find_model(connection, options.checkpoint)
        capabilities = generation.architecture_of(config).capabilities
        prompt, loras = take_loras(asked.prompt)
        inversions = await models.search(connection, type=ModelType.TextualInversion)
        known = embeddings.triggers(inversions, str(config.base))
        generation_request = GenerationRequest(
            prompt=parse(embeddings.by_words(prompt, known), "prompt"),
            loras=loras,
            controls=controlnet.control_choices(asked),
            reference_images=controlnet.reference_choices(asked),
            refiner=_refiner(asked),
            negative_prompt=parse(embeddings.by_words(asked.negative_prompt, known), "negative_prompt"),
            count=count,
            seed=_seed(asked.seed),
            width=asked.width,
            height=asked.height,
            steps=asked.steps,
            cfg_scale=asked.cfg_scale,
            clip_skip=options.last_layer - 1 if capabilities.clip_skip else 0,  # an option for all models
            vae=options.vae,
            seamless=asked.tiling,
            variation_seed=_seed(asked.subseed),
            variation_strength=asked.subseed_strength,
        )
        resolved = await generation.resolve(connection, generation_request, config)
    if options != kept and not asked.override_settings_restore_afterwards:
        async with resources.database.write() as connection:
            await options_of.save(connection, user, options)
    how = _sampling(config, asked.sampler_name or asked.sampler_index, asked.scheduler, resolved.settings.scheduler)
    resolved = replace(resolved, settings=replace(resolved.settings, scheduler=how.scheduler))
    strength = USUAL_STRENGTH[type(asked)] if asked.denoising_strength is None else asked.denoising_strength
    plan = GenerationPlan(asked, resolved, how, options, strength)
    return _with_hires(plan, asked) if isinstance(asked, TextToImage) and asked.enable_hr else plan


def _sampling(config: ModelConfig, name: str | None, schedule: str | None, default: str) -> Sampling:
    """Return how to sample; a model without that scheduler samples with its default one, and the image's text says so."""
    how = sampling(name, schedule, default)
    supported = generation.supported_scheduler(config, how.scheduler)
    return how if supported == how.scheduler else sampling(None, None, supported)


def _refiner(asked: Generate) -> RefinerChoice | None:
    """Return the refiner, which ends both runs with the settings that these have."""
    if not _named(asked.refiner_checkpoint):
        return None
    start = SWITCH_AT if asked.refiner_switch_at is None else asked.refiner_switch_at
    return RefinerChoice(model=options_of.without_hash(str(asked.refiner_checkpoint)), start=start)


def _seed(seed: int) -> int | None:
    return None if seed == -1 else seed


# What is not there


def refuse_unsupported(asked: Generate) -> None:
    """Raise Refused for the first thing that is asked for and would have to be left out."""
    for name, generation_request, why in _unsupported(asked):
        if generation_request:
            raise Refused(f"{name}: {why}", name)


def _unsupported(asked: Generate) -> list[tuple[str, Any, str]]:
    """Return every field that may ask for what is not there, whether it does, and what to say then."""
    styles = [name for name in asked.styles if name]
    scripts = [
        name
        for name, said in asked.alwayson_scripts.items()
        if _says_something(said) and name.casefold() != controlnet.SCRIPT
    ]
    common = [
        ("restore_faces", asked.restore_faces, "faces cannot be restored, there is no model for it"),
        ("styles", styles, f"there is no style {', '.join(styles)!r}"),
        ("script_name", _named(asked.script_name), f"there is no script {asked.script_name!r}"),
        ("alwayson_scripts", scripts, f"there is no script {', '.join(scripts)!r}"),
        ("seed_resize_from_w", asked.seed_resize_from_w > 0, "seeds of other sizes are not supported"),
        ("seed_resize_from_h", asked.seed_resize_from_h > 0, "seeds of other sizes are not supported"),
        ("s_churn", asked.s_churn > 0, "not supported"),
        ("s_tmin", asked.s_tmin > 0, "not supported"),
        ("s_noise", asked.s_noise != 1, "not supported"),
        ("s_min_uncond", asked.s_min_uncond > 0, "the negative prompt holds for every step"),
        ("infotext", _named(asked.infotext), "send the fields themselves"),
    ]
    if isinstance(asked, TextToImage):
        return common + _unsupported_hires(asked) if asked.enable_hr else common
    assert isinstance(asked, ImageToImage)
    return [
        *common,
        ("init_images", len(asked.init_images) > 1, "one picture at a time"),
        ("latent_mask", asked.latent_mask, "not supported; send the mask as `mask`"),
        ("resize_mode", asked.resize_mode == LATENT_RESIZE, "latents are not enlarged here; 0, 1 or 2"),
        (
            "inpainting_fill",
            asked.mask and asked.inpainting_fill == LATENT_NOTHING,
            "latent nothing (3) is not supported; 0, 1 or 2",
        ),
    ]


def _unsupported_hires(asked: TextToImage) -> list[tuple[str, Any, str]]:
    upscaler = asked.hr_upscaler or LATENT
    return [
        ("hr_scale", not 1 <= asked.hr_scale <= MOST_SCALE, f"must be 1 to {MOST_SCALE}"),
        ("hr_upscaler", upscaler not in {LATENT, *UPSCALERS}, f"there is no upscaler {upscaler!r}"),
        (
            "hr_checkpoint_name",
            (asked.hr_checkpoint_name or "").lower() not in SAME,
            "the checkpoint is the first run's",
        ),
        ("hr_prompt", asked.hr_prompt not in {"", asked.prompt}, "the prompt is the first run's"),
        (
            "hr_negative_prompt",
            asked.hr_negative_prompt not in {"", asked.negative_prompt},
            "the negative prompt is the first run's",
        ),
    ]


def _named(name: str | None) -> bool:
    return bool(name) and str(name).strip().lower() not in NOTHING


def _says_something(script: Any) -> bool:
    return bool(script.get("args")) if isinstance(script, dict) else bool(script)


# Hires fix


def _with_first_pass(asked: Generate) -> Generate:
    """Return the request as newer versions would say it: older ones give the first size apart, and the last as the size."""
    if not isinstance(asked, TextToImage) or not asked.enable_hr:
        return asked
    if not asked.firstphase_width or not asked.firstphase_height:
        return asked
    first = {"width": asked.firstphase_width, "height": asked.firstphase_height}
    last = {"hr_resize_x": asked.width or 0, "hr_resize_y": asked.height or 0}
    return asked.model_copy(update=first | last)


def _with_hires(plan: GenerationPlan, asked: TextToImage) -> GenerationPlan:
    settings, config = plan.resolved.settings, plan.resolved.config
    generation.require_capability(config, "hires_fix")
    grid = generation.architecture_of(config).grid
    width, height = generation.fit_size(*_enlarged(asked, settings.width, settings.height), grid)
    steps = asked.hr_second_pass_steps or settings.steps
    upscaler = asked.hr_upscaler or LATENT
    sampler = None if (asked.hr_sampler_name or "").lower() in SAME else asked.hr_sampler_name
    schedule = None if (asked.hr_scheduler or "").lower() in SAME else asked.hr_scheduler
    second = None
    if sampler or schedule:
        name = sampler or plan.sampling.sampler
        second = _sampling(config, name, schedule or asked.scheduler, settings.scheduler).scheduler
    hires_fix = HiresFix(
        width,
        height,
        steps=min(MOST_STEPS, max(steps, round(steps / max(plan.strength, 0.001)))),  # so that as many steps are done
        strength=plan.strength,
        scheduler=second,
        in_pixels=upscaler != LATENT,
        resample="nearest" if upscaler == "Nearest" else "lanczos",
    )
    resolved = replace(plan.resolved, settings=replace(settings, hires_fix=hires_fix))
    return replace(plan, resolved=resolved, hires=upscaler, hires_steps=steps)


def _enlarged(asked: TextToImage, width: int, height: int) -> tuple[int, int]:
    """Return the size of the second run; raises Refused for one of other proportions."""
    across, down = asked.hr_resize_x, asked.hr_resize_y
    if not across and not down:
        return round(width * asked.hr_scale), round(height * asked.hr_scale)
    if not across or not down:
        scale = across / width if across else down / height
        return round(width * scale), round(height * scale)
    if abs(across * height / width - down) > GRID_SLACK:
        raise Refused(f"{across}x{down} must have the proportions of {width}x{height}", "hr_resize_x")
    return across, down
