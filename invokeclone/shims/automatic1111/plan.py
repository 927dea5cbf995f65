"""Plans a request: rejects unsupported fields and resolves all settings that do not depend on its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import HiresFix
from invokeclone.graph.vocabulary.architectures import GuidanceKind
from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.queue.generation import (
    GenerationRequest,
    LoRAChoice,
    RefinerChoice,
    ResolvedRequest,
    SecondPassChoice,
)
from invokeclone.shims import embeddings
from invokeclone.shims.automatic1111 import controlnet
from invokeclone.shims.automatic1111 import options as options_store
from invokeclone.shims.automatic1111.options import Options
from invokeclone.shims.automatic1111.prompts import extract_loras, parse
from invokeclone.shims.automatic1111.samplers import Sampling, resolve_sampling
from invokeclone.shims.automatic1111.schemas import Generate, ImageToImage, TextToImage
from invokeclone.shims.compat_api import RequestRejected, check_images, check_prompt
from invokeclone.users.current import User

Interpolation = Literal["bilinear", "bicubic", "nearest", "nearest-exact"]
DEFAULT_STRENGTH = {TextToImage: 0.7, ImageToImage: 0.75}
LATENT = "Latent"
LATENT_MODES: dict[str, tuple[Interpolation, bool]] = {
    LATENT: ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
"""A1111's upscalers of latents: interpolation, and whether it is antialiased."""
UPSCALERS = ("None", "Lanczos", "Nearest")
EMPTY_NAMES = frozenset({"", "none"})
SAME_AS_FIRST_RUN = frozenset({"", "none", "use same checkpoint", "use same sampler", "use same scheduler"})
LATENT_RESIZE = 3
LATENT_NOTHING = 3
MAX_STEPS = 1000
MAX_SCALE = 16
GRID_SLACK = 8
SWITCH_AT = 0.8
"""Default start of the refiner, as a share of the schedule."""


@dataclass(frozen=True)
class GenerationPlan:
    """A request with everything resolved except its initial images."""

    request: Generate
    resolved: ResolvedRequest
    sampling: Sampling
    options: Options
    strength: float
    hires_upscaler: str | None = None
    """The upscaler of the hires fix."""
    hires_steps: int = 0
    """Steps of the hires fix, as A1111 counts them."""
    warnings: Sequence[tuple[str, str]] = ()
    """What the request asks for and the run leaves out, each with the name of the field."""

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.resolved.seeds)

    @property
    def subseeds(self) -> list[int]:
        """Return the variation seed of each image; without variations, they count up from the given one."""
        if self.resolved.variation_seeds:
            return list(self.resolved.variation_seeds)
        first = self.request.subseed if self.request.subseed >= 0 else self.resolved.seeds[0]
        return [(first + number) % generation.SEEDS for number in range(self.count)]


async def make_plan(resources: Resources, user: User, request: Generate) -> GenerationPlan:
    """Resolve the open settings. Raises RequestRejected and what `generation.resolve` raises; enqueues nothing."""
    refuse_unsupported(request)
    request = _with_first_pass(request)
    count = request.batch_size * request.n_iter
    limits = resources.settings.limits
    check_images(count, limits, "batch_size")
    check_prompt(request.prompt, limits, "prompt")
    check_prompt(request.negative_prompt, limits, "negative_prompt")
    if isinstance(request, TextToImage):
        check_prompt(request.hr_prompt, limits, "hr_prompt")
        check_prompt(request.hr_negative_prompt, limits, "hr_negative_prompt")
    async with resources.database.read() as connection:
        stored_options = await options_store.load(connection, user)
        options = await options_store.apply_changes(connection, stored_options, request.override_settings)
        config = await generation.find_model(connection, options.checkpoint)
        capabilities = generation.architecture_of(config).capabilities
        inversions = await models.search(connection, type=ModelType.TextualInversion)
        prompt, loras = _positive_prompt(request.prompt, "prompt", inversions, config)
        negative_prompt, warnings = _negative_prompt(request.negative_prompt, "negative_prompt", inversions, config)
        second_pass, second_warnings = await _second_pass(connection, request, inversions, config)
        generation_request = GenerationRequest(
            prompt=prompt,
            loras=loras,
            controls=controlnet.control_choices(request),
            reference_images=controlnet.reference_choices(request),
            refiner=_refiner(request),
            negative_prompt=negative_prompt,
            second_pass=second_pass,
            count=count,
            seed=_seed(request.seed),
            width=request.width,
            height=request.height,
            steps=request.steps,
            **_guidance(request, capabilities.guidance),
            clip_skip=options.last_layer - 1 if capabilities.clip_skip else 0,  # the option applies to all models
            vae=options.vae,
            seamless=request.tiling,
            variation_seed=_seed(request.subseed),
            variation_strength=request.subseed_strength,
        )
        resolved = await generation.resolve(connection, generation_request, config)
    if options != stored_options and not request.override_settings_restore_afterwards:
        async with resources.database.write() as connection:
            await options_store.save(connection, user, options)
    resolved_sampling = _resolve_sampling(
        config, request.sampler_name or request.sampler_index, request.scheduler, resolved.settings.scheduler
    )
    resolved = replace(resolved, settings=replace(resolved.settings, scheduler=resolved_sampling.scheduler))
    strength = DEFAULT_STRENGTH[type(request)] if request.denoising_strength is None else request.denoising_strength
    plan = GenerationPlan(
        request, resolved, resolved_sampling, options, strength, warnings=(*warnings, *second_warnings)
    )
    return _with_hires(plan, request) if isinstance(request, TextToImage) and request.enable_hr else plan


def _positive_prompt(
    text: str, param: str, inversions: Sequence[ModelConfig], config: ModelConfig
) -> tuple[Prompt, list[LoRAChoice]]:
    """Return a prompt for a model, and the LoRAs of its tags."""
    words, loras = extract_loras(text, param)
    return _parse(words, param, inversions, config), loras


def _negative_prompt(
    text: str, param: str, inversions: Sequence[ModelConfig], config: ModelConfig
) -> tuple[Prompt, list[tuple[str, str]]]:
    """Return a negative prompt for a model, and warnings: in A1111 too, LoRAs in it have no effect."""
    words, loras = extract_loras(text, param)
    warnings = [
        (f"the LoRA {lora.model} in {param} has no effect: LoRAs of the prompt apply to both prompts", param)
        for lora in loras
    ]
    return _parse(words, param, inversions, config), warnings


def _parse(words: str, param: str, inversions: Sequence[ModelConfig], config: ModelConfig) -> Prompt:
    return parse(embeddings.replace_words(words, embeddings.triggers(inversions, str(config.base))), param)


async def _second_pass(
    connection: AsyncConnection, request: Generate, inversions: Sequence[ModelConfig], config: ModelConfig
) -> tuple[SecondPassChoice | None, list[tuple[str, str]]]:
    """Return what the hires fix has other than the first pass, None if nothing; and the warnings of its prompts."""
    if not isinstance(request, TextToImage) or not request.enable_hr:
        return None, []
    name = request.hr_checkpoint_name or ""
    is_same = name.strip().lower() in SAME_AS_FIRST_RUN
    second = config if is_same else await options_store.find_checkpoint(connection, options_store.without_hash(name))
    texts = request.hr_prompt or request.prompt, request.hr_negative_prompt or request.negative_prompt
    if second.key == config.key and texts == (request.prompt, request.negative_prompt):
        return None, []
    prompt, loras = _positive_prompt(texts[0], "hr_prompt", inversions, second)
    negative_prompt, warnings = _negative_prompt(texts[1], "hr_negative_prompt", inversions, second)
    choice = SecondPassChoice(
        model=second.key,
        prompt=prompt,
        negative_prompt=negative_prompt,
        loras=loras if request.hr_prompt else None,
    )
    return choice, warnings if request.hr_negative_prompt else []


def _resolve_sampling(config: ModelConfig, name: str | None, schedule: str | None, default: str) -> Sampling:
    """Return the sampling; a model without that scheduler uses its default one, and the infotext shows it."""
    result = resolve_sampling(name, schedule, default)
    supported = generation.resolve_scheduler(config, result.scheduler)
    return result if supported == result.scheduler else resolve_sampling(None, None, supported)


def _guidance(request: Generate, kind: GuidanceKind) -> dict[str, float | None]:
    """Return the guidance; with Forge's `distilled_cfg_scale`, the `cfg_scale` of a distilled model is that of negatives.

    Without it, `cfg_scale` is the guidance of every model, because A1111's clients send no other.
    """
    if kind != "distilled" or request.distilled_cfg_scale is None:
        return {"cfg_scale": request.cfg_scale}
    return {"cfg_scale": request.distilled_cfg_scale, "true_cfg_scale": request.cfg_scale}


def _refiner(request: Generate) -> RefinerChoice | None:
    """Return the refiner, which runs the last steps of both passes with their settings."""
    if not _is_set(request.refiner_checkpoint):
        return None
    start = SWITCH_AT if request.refiner_switch_at is None else request.refiner_switch_at
    return RefinerChoice(model=options_store.without_hash(str(request.refiner_checkpoint)), start=start)


def _seed(seed: int) -> int | None:
    return None if seed == -1 else seed


# Unsupported fields


def refuse_unsupported(request: Generate) -> None:
    """Raise RequestRejected for the first unsupported field that is used."""
    for name, is_requested, reason in _find_unsupported(request):
        if is_requested:
            raise RequestRejected(f"{name}: {reason}", name)


def _find_unsupported(request: Generate) -> list[tuple[str, Any, str]]:
    """Return the fields that can ask for unsupported features, whether each does, and the error message."""
    styles = [name for name in request.styles if name]
    scripts = [
        name
        for name, script in request.alwayson_scripts.items()
        if _has_args(script) and name.casefold() != controlnet.SCRIPT
    ]
    common = [
        ("restore_faces", request.restore_faces, "face restoration is not supported"),
        ("styles", styles, f"unknown style {', '.join(styles)!r}"),
        ("script_name", _is_set(request.script_name), f"unknown script {request.script_name!r}"),
        ("alwayson_scripts", scripts, f"unknown script {', '.join(scripts)!r}"),
        ("seed_resize_from_w", request.seed_resize_from_w > 0, "resizing of seeds is not supported"),
        ("seed_resize_from_h", request.seed_resize_from_h > 0, "resizing of seeds is not supported"),
        ("s_churn", request.s_churn > 0, "not supported"),
        ("s_tmin", request.s_tmin > 0, "not supported"),
        ("s_noise", request.s_noise != 1, "not supported"),
        ("s_min_uncond", request.s_min_uncond > 0, "not supported; the negative prompt applies to every step"),
        ("infotext", _is_set(request.infotext), "not supported; send the fields themselves"),
    ]
    if isinstance(request, TextToImage):
        return common + _find_unsupported_hires(request) if request.enable_hr else common
    assert isinstance(request, ImageToImage)
    return [
        *common,
        ("init_images", len(request.init_images) > 1, "only one initial image is supported"),
        ("latent_mask", request.latent_mask, "not supported; send the mask as `mask`"),
        (
            "resize_mode",
            request.resize_mode == LATENT_RESIZE,
            "resizing of latents (3) is not supported; use 0, 1 or 2",
        ),
        (
            "inpainting_fill",
            request.mask and request.inpainting_fill == LATENT_NOTHING,
            "latent nothing (3) is not supported; use 0, 1 or 2",
        ),
    ]


def _find_unsupported_hires(request: TextToImage) -> list[tuple[str, Any, str]]:
    upscaler = _find_upscaler(request)
    names = ", ".join([*LATENT_MODES, *UPSCALERS])
    return [
        ("hr_scale", not 1 <= request.hr_scale <= MAX_SCALE, f"must be 1 to {MAX_SCALE}"),
        ("hr_upscaler", upscaler is None, f"unknown upscaler {request.hr_upscaler!r}; there are: {names}"),
    ]


def _find_upscaler(request: TextToImage) -> str | None:
    """Return the name of the upscaler of the hires fix, regardless of case; None if there is none of this name."""
    requested = (request.hr_upscaler or LATENT).casefold()
    return next((name for name in (*LATENT_MODES, *UPSCALERS) if name.casefold() == requested), None)


def _is_set(name: str | None) -> bool:
    return bool(name) and str(name).strip().lower() not in EMPTY_NAMES


def _has_args(script: Any) -> bool:
    return bool(script.get("args")) if isinstance(script, dict) else bool(script)


# Hires fix


def _with_first_pass(request: Generate) -> Generate:
    """Return the request in the newer form: older clients send the first size separately and the final one as size."""
    if not isinstance(request, TextToImage) or not request.enable_hr:
        return request
    if not request.firstphase_width or not request.firstphase_height:
        return request
    first_size = {"width": request.firstphase_width, "height": request.firstphase_height}
    final_size = {"hr_resize_x": request.width or 0, "hr_resize_y": request.height or 0}
    return request.model_copy(update=first_size | final_size)


def _with_hires(plan: GenerationPlan, request: TextToImage) -> GenerationPlan:
    settings, config = plan.resolved.settings, plan.resolved.config
    generation.require_capability(config, "hires_fix")
    second = plan.resolved.second_config or config
    grid = generation.grid_of(config, second)
    width, height = generation.fit_size(*_hires_size(request, settings.width, settings.height), grid)
    steps = request.hr_second_pass_steps or settings.steps
    upscaler = _find_upscaler(request) or LATENT
    interpolation, antialias = LATENT_MODES.get(upscaler, LATENT_MODES[LATENT])
    sampler = None if (request.hr_sampler_name or "").lower() in SAME_AS_FIRST_RUN else request.hr_sampler_name
    schedule = None if (request.hr_scheduler or "").lower() in SAME_AS_FIRST_RUN else request.hr_scheduler
    second_scheduler = None
    if sampler or schedule:
        name = sampler or plan.sampling.sampler
        second_scheduler = _resolve_sampling(second, name, schedule or request.scheduler, settings.scheduler).scheduler
    hires_fix = HiresFix(
        width,
        height,
        steps=min(MAX_STEPS, max(steps, round(steps / max(plan.strength, 0.001)))),  # so that `steps` of them run
        strength=plan.strength,
        scheduler=second_scheduler,
        in_pixels=upscaler not in LATENT_MODES,
        resample="nearest" if upscaler == "Nearest" else "lanczos",
        interpolation=interpolation,
        antialias=antialias,
    )
    resolved = replace(plan.resolved, settings=replace(settings, hires_fix=hires_fix))
    return replace(plan, resolved=resolved, hires_upscaler=upscaler, hires_steps=steps)


def _hires_size(request: TextToImage, width: int, height: int) -> tuple[int, int]:
    """Return the size of the second pass; raises RequestRejected for a different aspect ratio."""
    target_width, target_height = request.hr_resize_x, request.hr_resize_y
    if not target_width and not target_height:
        return round(width * request.hr_scale), round(height * request.hr_scale)
    if not target_width or not target_height:
        scale = target_width / width if target_width else target_height / height
        return round(width * scale), round(height * scale)
    if abs(target_width * height / width - target_height) > GRID_SLACK:
        raise RequestRejected(
            f"{target_width}x{target_height} must have the aspect ratio of {width}x{height}", "hr_resize_x"
        )
    return target_width, target_height
