"""A request from its plan to its answer: enqueued, waited for, packed and told of in `info`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from invokeclone.images import service
from invokeclone.kit.errors import NotFound
from invokeclone.kit.resources import Resources
from invokeclone.shims import pictures
from invokeclone.shims.automatic1111 import controlnet, infotext, inpainting
from invokeclone.shims.automatic1111.jobs import Job, Jobs, timestamp
from invokeclone.shims.automatic1111.options import short_hash
from invokeclone.shims.automatic1111.plan import GenerationPlan, planned
from invokeclone.shims.automatic1111.schemas import Generate, ImageToImage, TextToImage
from invokeclone.shims.runs import RunCanceled, Runs
from invokeclone.users.current import User
from invokeclone.version import __version__

ORIGIN = "a1111"


class InitImageMissing(NotFound):
    """There is no picture to begin with."""

    def __init__(self) -> None:
        super().__init__("Init image not found")


@dataclass(frozen=True)
class Made:
    """A picture that is done."""

    number: int
    """Which of the request's it is."""
    name: str


@dataclass(frozen=True)
class Desk:
    """What a request is worked on with."""

    resources: Resources
    runs: Runs
    jobs: Jobs
    user: User


async def text_to_image(desk: Desk, asked: TextToImage) -> dict[str, Any]:
    """Make pictures of a prompt; returns the answer."""
    return await _answered(desk, await _planned(desk, asked), asked)


async def image_to_image(desk: Desk, asked: ImageToImage) -> dict[str, Any]:
    """Make pictures of a prompt and a picture; with a mask only what is white in it changes. Returns the answer."""
    if not asked.init_images:
        raise InitImageMissing
    plan = await _planned(desk, asked)
    if asked.mask and asked.inpainting_fill == inpainting.NOISE:
        plan = replace(plan, strength=1.0)  # noise alone has nothing of the old picture to keep
    image = await _read(desk.resources, asked.init_images[0], "init_images")
    mask = await _read(desk.resources, asked.mask, "mask") if asked.mask else None
    size = (plan.resolved.settings.width, plan.resolved.settings.height)
    ready = await pictures.image_work(lambda: inpainting.arranged(image, mask, asked, size))
    init_image, inpaint_mask, target = await inpainting.kept(desk.resources, desk.user, ready, asked, plan.strength)
    settings = replace(plan.resolved.settings, init_image=init_image, inpaint_mask=inpaint_mask, paste_target=target)
    return await _answered(desk, replace(plan, resolved=replace(plan.resolved, settings=settings)), asked)


async def _planned(desk: Desk, asked: Generate) -> GenerationPlan:
    """Return the plan, with the images of its ControlNets."""
    plan = await planned(desk.resources, desk.user, asked)
    return replace(plan, resolved=await controlnet.with_images(desk.resources, desk.user, plan.resolved, asked))


async def _read(resources: Resources, text: str, param: str) -> Any:
    data = await pictures.image_work(lambda: pictures.unpacked(text, param, resources.settings.limits))
    return await pictures.opened(resources, data, param)


async def _answered(desk: Desk, plan: GenerationPlan, asked: Generate) -> dict[str, Any]:
    stamp = timestamp()
    made = await _run(desk, plan)
    texts = [_text(plan, each.number) for each in made]
    files = []
    for each, text in zip(made, texts, strict=True) if asked.send_images else ():
        files.append(await _packed(desk.resources, each.name, plan, text))
    return {
        "images": files,
        "parameters": _parameters(asked),
        "info": json.dumps(_info(plan, [each.number for each in made], texts, stamp), ensure_ascii=False),
    }


async def _packed(resources: Resources, name: str, plan: GenerationPlan, text: str) -> str:
    path = await service.path(resources, name)
    return await pictures.image_work(lambda: pictures.base64_of(infotext.packed(path, plan.options.format, text)))


async def _run(desk: Desk, plan: GenerationPlan) -> list[Made]:
    """Run, and return what was made: all of it, or less when the client interrupted or skipped.

    Raises RunFailed for the first that failed, RunCanceled when somebody else canceled.
    """
    settings = plan.resolved.settings
    steps = settings.steps + (plan.hires_steps if settings.hires_fix else 0)
    made: list[Made] = []
    async with desk.runs.running(plan.resolved.batch(origin=ORIGIN), desk.user) as run:
        with desk.jobs.opened(Job(run, steps, plan.asked.force_task_id)) as job:
            numbers = {item_id: number for number, item_id in enumerate(run.item_ids)}
            async for end in run.ends():
                end.require_success()
                made += [Made(numbers[end.item.item_id], name) for name in end.names]
            if len(made) < plan.count and not job.ended_on_purpose:
                raise RunCanceled
    return made


# What is told


def _parameters(asked: Generate) -> dict[str, Any]:
    """Return the request as it was read; the pictures in it only where that is asked for."""
    said = asked.model_dump()
    if isinstance(asked, ImageToImage) and not asked.include_init_images:
        said |= {"init_images": None, "mask": None}
    return said


def _text(plan: GenerationPlan, number: int) -> str:
    """Return the text of one picture."""
    asked, resolved, how = plan.asked, plan.resolved.settings, plan.sampling
    varied = bool(plan.resolved.variation_seeds)
    begins = isinstance(asked, ImageToImage) or plan.hires is not None
    settings = {
        "Steps": resolved.steps,
        "Sampler": how.sampler,
        "Schedule type": how.schedule,
        "CFG scale": resolved.guidance,
        "Seed": plan.resolved.seeds[number],
        "Size": f"{resolved.width}x{resolved.height}",
        "Model hash": short_hash(plan.resolved.config),
        "Model": plan.resolved.config.name,
        "VAE": resolved.vae["name"] if resolved.vae else None,
        "Variation seed": plan.subseeds[number] if varied else None,
        "Variation seed strength": asked.subseed_strength if varied else None,
        "Denoising strength": plan.strength if begins else None,
        "Clip skip": plan.options.last_layer if plan.options.last_layer > 1 else None,
        "Tiling": True if asked.tiling else None,
        **_extra(plan),
        "Version": f"invokeclone {__version__}",
    }
    return infotext.written(asked.prompt, asked.negative_prompt, settings)


def _extra(plan: GenerationPlan) -> dict[str, Any]:
    """Return what only some pictures have to tell: the second run, the mask, and a schedule that is not to be had."""
    found: dict[str, Any] = {}
    hires_fix = plan.resolved.settings.hires_fix
    if hires_fix:
        found |= {
            "Hires resize": f"{hires_fix.width}x{hires_fix.height}",
            "Hires steps": plan.hires_steps,
            "Hires upscaler": plan.hires,
        }
    if isinstance(plan.asked, ImageToImage) and plan.asked.mask:
        found["Mask blur"] = max(inpainting.blur_of(plan.asked))
        if plan.asked.inpaint_full_res:
            found |= {"Inpaint area": "Only masked", "Masked area padding": plan.asked.inpaint_full_res_padding}
    if refiner := plan.resolved.settings.refiner:
        found |= {"Refiner": refiner.model["name"], "Refiner switch at": refiner.start}
    found |= controlnet.description(plan.resolved)
    if plan.sampling.instead_of:
        found["Schedule type instead of"] = plan.sampling.instead_of
    return found


def _info(plan: GenerationPlan, numbers: Sequence[int], texts: list[str], stamp: str) -> dict[str, Any]:
    """Return what A1111 tells of the pictures that are done; with none, of those that were planned."""
    asked, resolved = plan.asked, plan.resolved.settings
    told = list(numbers) or list(range(plan.count))
    seeds = [plan.resolved.seeds[number] for number in told]
    subseeds = [plan.subseeds[number] for number in told]
    return {
        "prompt": asked.prompt,
        "all_prompts": [asked.prompt] * len(told),
        "negative_prompt": asked.negative_prompt,
        "all_negative_prompts": [asked.negative_prompt] * len(told),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": asked.subseed_strength,
        "width": resolved.width,
        "height": resolved.height,
        "sampler_name": plan.sampling.sampler,
        "cfg_scale": resolved.guidance,
        "steps": resolved.steps,
        "batch_size": asked.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": plan.resolved.config.name,
        "sd_model_hash": short_hash(plan.resolved.config),
        "sd_vae_name": resolved.vae["name"] if resolved.vae else None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": plan.strength if isinstance(asked, ImageToImage) or plan.hires else None,
        "extra_generation_params": {"Schedule type": plan.sampling.schedule, **_extra(plan)},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": stamp,
        "clip_skip": plan.options.last_layer,
        "is_using_inpainting_conditioning": False,
        "version": f"invokeclone {__version__}",
    }
