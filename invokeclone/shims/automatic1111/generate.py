"""Runs an A1111 request: resolves it, enqueues it, waits for the images and builds the response."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from invokeclone.images import image_work, service
from invokeclone.kit.errors import NotFound
from invokeclone.kit.resources import Resources
from invokeclone.queue import generation
from invokeclone.shims import image_io
from invokeclone.shims.automatic1111 import controlnet, infotext, inpainting
from invokeclone.shims.automatic1111.jobs import Job, Jobs, timestamp
from invokeclone.shims.automatic1111.options import short_hash
from invokeclone.shims.automatic1111.plan import GenerationPlan, make_plan
from invokeclone.shims.automatic1111.schemas import Generate, ImageToImage, TextToImage
from invokeclone.shims.automatic1111.store import ORIGIN
from invokeclone.shims.compat_api import Warnings
from invokeclone.shims.runs import RunCanceled, Runs
from invokeclone.users.current import User
from invokeclone.version import __version__


class InitImageMissing(NotFound):
    """The request has no initial image."""

    def __init__(self) -> None:
        super().__init__("Init image not found")


@dataclass(frozen=True)
class GeneratedImage:
    """A finished image."""

    number: int
    """Its position in the request."""
    name: str


@dataclass(frozen=True)
class RequestContext:
    """What a request needs to run."""

    resources: Resources
    runs: Runs
    jobs: Jobs
    user: User
    warnings: Warnings


async def text_to_image(context: RequestContext, request: TextToImage) -> dict[str, Any]:
    """Return the response with images from a prompt."""
    return await _respond(context, await _plan_with_images(context, request), request)


async def image_to_image(context: RequestContext, request: ImageToImage) -> dict[str, Any]:
    """Return the response with images from a prompt and an initial image; with a mask, only its white area changes."""
    if not request.init_images:
        raise InitImageMissing
    plan = await _plan_with_images(context, request)
    if request.mask and request.inpainting_fill == inpainting.NOISE:
        plan = replace(plan, strength=1.0)  # the masked area starts as pure noise
    image = await _decode_image(context.resources, request.init_images[0], "init_images")
    mask = await _decode_image(context.resources, request.mask, "mask") if request.mask else None
    size = (plan.resolved.settings.width, plan.resolved.settings.height)
    inputs = await image_work.image_work(lambda: inpainting.arrange(image, mask, request, size))
    init_image, inpaint_mask, target = await inpainting.save_images(
        context.resources, context.user, inputs, request, plan.strength
    )
    settings = replace(plan.resolved.settings, init_image=init_image, inpaint_mask=inpaint_mask, paste_target=target)
    return await _respond(context, replace(plan, resolved=replace(plan.resolved, settings=settings)), request)


async def _plan_with_images(context: RequestContext, request: Generate) -> GenerationPlan:
    """Return the plan, with the images of its ControlNet units stored."""
    plan = await make_plan(context.resources, context.user, request)
    return replace(plan, resolved=await controlnet.with_images(context.resources, context.user, plan.resolved, request))


async def _decode_image(resources: Resources, text: str, param: str) -> Any:
    data = await image_work.image_work(lambda: image_io.decode_base64(text, param, resources.settings.limits))
    return await image_io.decode_image(resources, data, param)


async def _respond(context: RequestContext, plan: GenerationPlan, request: Generate) -> dict[str, Any]:
    for text, param in (*((text, "prompt") for text in plan.resolved.warnings), *plan.warnings):
        context.warnings.add(text, param)
    stamp = timestamp()
    images = await _run(context, plan)
    texts = [_text(plan, image.number) for image in images]
    files = []
    for image, text in zip(images, texts, strict=True) if request.send_images else ():
        files.append(await _encode_result(context.resources, image.name, plan, text))
    return {
        "images": files,
        "parameters": _parameters(request),
        "info": json.dumps(_info(plan, [image.number for image in images], texts, stamp), ensure_ascii=False),
    }


async def _encode_result(resources: Resources, name: str, plan: GenerationPlan, text: str) -> str:
    file = await service.file(resources, name)
    return await image_work.process(
        file.read, lambda data: image_io.encode_base64(infotext.embed_infotext(data, plan.options.format, text))
    )


async def _run(context: RequestContext, plan: GenerationPlan) -> list[GeneratedImage]:
    """Run the plan and return its images: all, or fewer when the client interrupted or skipped.

    Raises RunFailed for the first item that failed, RunCanceled when items were canceled in another way.
    """
    settings = plan.resolved.settings
    steps = settings.steps + (plan.hires_steps if settings.hires_fix else 0)
    images: list[GeneratedImage] = []
    async with context.runs.running(plan.resolved.batch(origin=ORIGIN), context.user) as run:
        with context.jobs.track(Job(run, steps, plan.request.force_task_id)) as job:
            numbers = {item_id: number for number, item_id in enumerate(run.item_ids)}
            async for result in run.results():
                result.require_success()
                images += [GeneratedImage(numbers[result.item.item_id], name) for name in result.image_names]
            if len(images) < plan.count and not job.was_stopped_by_client:
                raise RunCanceled
    return images


# Response


def _parameters(request: Generate) -> dict[str, Any]:
    """Return the request as it was read; its images only if `include_init_images` is set."""
    parameters = request.model_dump()
    if isinstance(request, ImageToImage) and not request.include_init_images:
        parameters |= {"init_images": None, "mask": None}
    return parameters


def _text(plan: GenerationPlan, number: int) -> str:
    """Return the infotext of one image."""
    request, resolved, sampling = plan.request, plan.resolved.settings, plan.sampling
    has_variations = bool(plan.resolved.variation_seeds)
    uses_strength = isinstance(request, ImageToImage) or plan.hires_upscaler is not None
    settings = {
        "Steps": resolved.steps,
        "Sampler": sampling.sampler,
        "Schedule type": sampling.schedule,
        **_guidance_entries(plan),
        "Seed": plan.resolved.seeds[number],
        "Size": f"{resolved.width}x{resolved.height}",
        "Model hash": short_hash(plan.resolved.config),
        "Model": plan.resolved.config.name,
        "VAE": resolved.vae["name"] if resolved.vae else None,
        "Variation seed": plan.subseeds[number] if has_variations else None,
        "Variation seed strength": request.subseed_strength if has_variations else None,
        "Denoising strength": plan.strength if uses_strength else None,
        "Clip skip": plan.options.last_layer if plan.options.last_layer > 1 else None,
        "Tiling": True if request.tiling else None,
        **_extra(plan),
        "Version": f"invokeclone {__version__}",
    }
    return infotext.format_infotext(request.prompt, request.negative_prompt, settings)


def _guidance_entries(plan: GenerationPlan) -> dict[str, float]:
    """Return the infotext entries of the guidance, as Forge writes them if the request has its parameter."""
    settings = plan.resolved.settings
    capabilities = generation.architecture_of(plan.resolved.config).capabilities
    if plan.request.distilled_cfg_scale is None or capabilities.guidance != "distilled":
        return {"CFG scale": settings.guidance}
    return {"CFG scale": settings.cfg_scale, "Distilled CFG Scale": settings.guidance}


def _extra(plan: GenerationPlan) -> dict[str, Any]:
    """Return the optional infotext entries: hires fix, mask, refiner, ControlNet units, an unavailable schedule."""
    fields: dict[str, Any] = {}
    hires_fix = plan.resolved.settings.hires_fix
    if hires_fix:
        fields |= {
            "Hires resize": f"{hires_fix.width}x{hires_fix.height}",
            "Hires steps": plan.hires_steps,
            "Hires upscaler": plan.hires_upscaler,
            **_second_pass_entries(plan),
        }
    if isinstance(plan.request, ImageToImage) and plan.request.mask:
        fields["Mask blur"] = max(inpainting.blur_of(plan.request))
        if plan.request.inpaint_full_res:
            fields |= {"Inpaint area": "Only masked", "Masked area padding": plan.request.inpaint_full_res_padding}
    if refiner := plan.resolved.settings.refiner:
        fields |= {"Refiner": refiner.model["name"], "Refiner switch at": refiner.start}
    fields |= controlnet.description(plan.resolved)
    if plan.sampling.unavailable_sampler:
        fields["Requested sampler"] = plan.sampling.unavailable_sampler
    if plan.sampling.unavailable_schedule:
        fields["Requested schedule type"] = plan.sampling.unavailable_schedule
    return fields


def _second_pass_entries(plan: GenerationPlan) -> dict[str, str]:
    """Return the infotext entries of a second pass with a checkpoint or prompts of its own."""
    request, second = plan.request, plan.resolved.second_config
    if second is None or not isinstance(request, TextToImage):
        return {}
    entries = {"Hires checkpoint": second.name} if second.key != plan.resolved.config.key else {}
    entries |= {"Hires prompt": request.hr_prompt, "Hires negative prompt": request.hr_negative_prompt}
    return {name: text for name, text in entries.items() if text}


def _info(plan: GenerationPlan, numbers: Sequence[int], texts: list[str], stamp: str) -> dict[str, Any]:
    """Return the `info` object of the finished images; if there are none, of the planned ones."""
    request, resolved = plan.request, plan.resolved.settings
    indices = list(numbers) or list(range(plan.count))
    seeds = [plan.resolved.seeds[number] for number in indices]
    subseeds = [plan.subseeds[number] for number in indices]
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * len(indices),
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * len(indices),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": request.subseed_strength,
        "width": resolved.width,
        "height": resolved.height,
        "sampler_name": plan.sampling.sampler,
        "cfg_scale": _guidance_entries(plan)["CFG scale"],
        "steps": resolved.steps,
        "batch_size": request.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": plan.resolved.config.name,
        "sd_model_hash": short_hash(plan.resolved.config),
        "sd_vae_name": resolved.vae["name"] if resolved.vae else None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": plan.strength if isinstance(request, ImageToImage) or plan.hires_upscaler else None,
        "extra_generation_params": {"Schedule type": plan.sampling.schedule, **_extra(plan)},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": stamp,
        "clip_skip": plan.options.last_layer,
        "is_using_inpainting_conditioning": False,
        "version": f"invokeclone {__version__}",
    }
