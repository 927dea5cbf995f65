"""The routes of OpenAI's Images API and of its list of models, under `/v1` and under Azure's addresses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from PIL import Image

from invokeclone.graph.prompts import Prompt
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.requests import Needs, Read
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.queue.generation import GenerationRequest, ResolvedRequest
from invokeclone.shims import init_images, pictures
from invokeclone.shims.dialect import Refused, check_images, check_prompt, json_answer, read_json, router
from invokeclone.shims.openai import answers, links
from invokeclone.shims.openai.answers import Form
from invokeclone.shims.openai.errors import render
from invokeclone.shims.openai.requests import (
    SCALE,
    Common,
    Edit,
    Generation,
    Prompted,
    VariationRequest,
    fields,
    model_meant,
    uploads,
)
from invokeclone.shims.runs import runs_of, unless_gone
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

ORIGIN = "openai"
EDIT_STRENGTH = {None: 0.75, "low": 0.75, "high": 0.5}
"""How much of a picture without a mask is made new, by `input_fidelity`."""
VARIATION_STRENGTH = 0.6


class ModelUnknown(Refused):
    """No model of this name can make pictures."""

    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(f"The model '{name}' does not exist", "model", "model_not_found")


class AddressUnknown(Refused):
    """The API has no such address."""

    status = 404


@dataclass(frozen=True)
class _Job:
    """A request that is ready to run."""

    resolved: ResolvedRequest
    form: Form
    as_links: bool
    partial: int | None
    """Previews per picture of a stream; None: no stream."""


# Models


async def list_models(_caller: Caller, connection: Read) -> Response:
    """List the models that can make pictures."""
    times = await models.created(connection)
    listed = [_model(config, times) for config in await generation.generation_models(connection)]
    return json_answer({"object": "list", "data": listed})


async def get_model(_caller: Caller, connection: Read, name: str) -> Response:
    """Get a model by its name or key."""
    return json_answer(_model(await _find(connection, name), await models.created(connection)))


async def _find(connection: Any, name: str | None) -> ModelConfig:
    try:
        return await generation.find_model(connection, name)
    except generation.ModelNotFound as error:
        raise ModelUnknown(name or "") from error


def _model(config: ModelConfig, created: Mapping[str, datetime]) -> dict[str, Any]:
    made = int(created[config.key].timestamp())
    return {"id": config.name, "object": "model", "created": made, "owned_by": "invokeclone"}


# Pictures


async def generate(request: Request, caller: Caller, needs: Needs) -> Response:
    """Make pictures of a prompt."""
    asked = await read_json(request, Generation)
    generation_request = _request_of(needs.settings.limits, asked, asked.prompt)
    job = await _job(
        needs, asked, generation_request, request.path_params.get("deployment"), "image_generation", style=asked.style
    )
    return await _answer(request, needs, caller, job)


async def edit(request: Request, caller: Caller, needs: Needs) -> Response:
    """Make pictures of a prompt and a picture; with a mask, only what is transparent in it changes."""
    async with request.form(max_files=32, max_part_size=2**20) as form:
        asked = Edit.model_validate(fields(form, needs.settings.limits))
        sent = await uploads(form, needs.settings.limits, "image", "image[]")
        masks = await uploads(form, needs.settings.limits, "mask")
    if len(masks) > 1:
        raise Refused("there may be one mask", "mask")
    image = await _only(needs, sent)
    mask = await pictures.opened(needs, masks[0], "mask") if masks else None
    if mask is not None and mask.size != image.size:
        raise Refused(f"the mask is {mask.width}x{mask.height} and the picture {image.width}x{image.height}", "mask")
    generation_request = _request_of(
        needs.settings.limits, asked, asked.prompt, asked.sides or init_images.within_edit_limit(image.size)
    )
    job = await _job(needs, asked, generation_request, request.path_params.get("deployment"), "image_edit", inputs=1)
    job = await _with_picture(needs, caller, job, image, EDIT_STRENGTH[asked.input_fidelity], mask)
    return await _answer(request, needs, caller, job)


async def vary(request: Request, caller: Caller, needs: Needs) -> Response:
    """Make pictures like a picture."""
    async with request.form(max_files=32, max_part_size=2**20) as form:
        asked = VariationRequest.model_validate(fields(form, needs.settings.limits))
        image = await _only(needs, await uploads(form, needs.settings.limits, "image", "image[]"))
    generation_request = _request_of(
        needs.settings.limits, asked, "", asked.sides or init_images.within_edit_limit(image.size)
    )
    job = await _job(needs, asked, generation_request, request.path_params.get("deployment"), "image_edit", inputs=1)
    job = await _with_picture(needs, caller, job, image, VARIATION_STRENGTH)
    return await _answer(request, needs, caller, job)


async def _only(resources: Resources, sent: list[bytes]) -> Image.Image:
    if not sent:
        raise Refused("Missing required parameter: 'image'", "image", "missing_required_parameter")
    if len(sent) > 1:
        raise Refused("the models here edit one picture at a time", "image", "too_many_images")
    return await pictures.opened(resources, sent[0], "image")


def _request_of(limits: Limits, asked: Common, prompt: str, sides: tuple[int, int] | None = None) -> GenerationRequest:
    width, height = sides or asked.sides or (None, None)
    if width == 0 or height == 0:
        raise Refused("both sides must be at least 1", "size")
    check_images(asked.count, limits, "n")
    check_prompt(prompt, limits, "prompt")
    check_prompt(asked.negative_prompt, limits, "negative_prompt")
    return GenerationRequest(
        prompt=Prompt.plain(prompt),
        negative_prompt=Prompt.plain(asked.negative_prompt),
        count=asked.count,
        seed=asked.seed,
        width=width,
        height=height,
        steps=asked.steps,
        cfg_scale=asked.cfg_scale,
        scheduler=asked.scheduler,
        loras=asked.loras,
    )


async def _job(
    resources: Resources,
    asked: Common,
    generation_request: GenerationRequest,
    deployment: str | None,
    kind: answers.Kind,
    *,
    inputs: int = 0,
    style: str | None = None,
) -> _Job:
    """Resolve what is left open, and what quality and style mean for the model."""
    async with resources.database.read() as connection:
        config = await _find(connection, model_meant(deployment or asked.model))
        try:
            resolved = await generation.resolve(connection, generation_request, config)
        except generation.SizeOverLimits as error:
            raise Refused(str(error), "size") from error
    settings = resolved.settings
    prompted = asked if isinstance(asked, Prompted) else None
    if asked.steps is None and prompted:
        settings = replace(settings, steps=max(1, round(settings.steps * prompted.factor)))
    if asked.cfg_scale is None and style:
        settings = replace(settings, guidance=max(1.0, settings.guidance * SCALE[style]))
    form = Form(
        kind=kind,
        prompt=settings.prompt.text,
        width=settings.width,
        height=settings.height,
        format=prompted.format if prompted else "png",
        compression=prompted.output_compression if prompted else None,
        quality=prompted.quality if prompted else "auto",
        inputs=inputs,
    )
    if form.format == "png" and form.compression not in (None, 100):
        raise Refused("compression below 100 is not possible for png", "output_compression")
    stream = bool(prompted and prompted.stream)
    partial = (prompted.partial_images or 0) if prompted and stream else None
    return _Job(replace(resolved, settings=settings), form, asked.response_format == "url", partial)


async def _with_picture(
    resources: Resources, user: User, job: _Job, image: Image.Image, strength: float, mask: Image.Image | None = None
) -> _Job:
    return replace(job, resolved=await init_images.begin_with(resources, user, job.resolved, image, strength, mask))


async def _answer(request: Request, resources: Resources, user: User, job: _Job) -> Response:
    """Run, wait and answer."""
    runs = runs_of(request)
    batch = job.resolved.batch(origin=ORIGIN)
    if job.partial is not None:
        run = await runs.enqueue(batch, user)
        events = answers.streamed(runs, run, job.form, job.partial)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    async with runs.running(batch, user) as run:
        names = await unless_gone(request, run.pictures())
    addresses = await links.make(request, resources, names, job.form.format) if job.as_links else None
    return json_answer(await answers.whole(resources, job.form, names, addresses))


async def linked_picture(needs: Needs, token: str) -> Response:
    """Send a picture by an address that was given out for it; no key is needed."""
    name, kind = await links.read(needs, token)
    data = await pictures.packed(needs, name, kind)
    return Response(data, media_type=pictures.MIME[kind], headers={"Cache-Control": "private, max-age=3600"})


async def unknown(_caller: Caller, request: Request, path: str) -> Response:  # noqa: ARG001
    """Refuse any other address in this dialect's words."""
    raise AddressUnknown(f"Unknown request URL: {request.method} {request.url.path}", None, "unknown_url")


def _routes(made: APIRouter, prefix: str) -> None:
    for name, endpoint in (("generations", generate), ("edits", edit), ("variations", vary)):
        made.add_api_route(f"{prefix}/images/{name}", endpoint, methods=["POST"])


def _router() -> APIRouter:
    made = router(render)
    _routes(made, "/openai/deployments/{deployment}")
    for prefix in ("/v1", "/openai/v1", "/openai"):
        _routes(made, prefix)
        made.add_api_route(f"{prefix}/models", list_models, methods=["GET"])
        made.add_api_route(f"{prefix}/models/{{name:path}}", get_model, methods=["GET"])
        made.add_api_route(f"{prefix}/images/files/{{token}}", linked_picture, methods=["GET"])
    for prefix in ("/v1", "/openai"):
        made.add_api_route(f"{prefix}/{{path:path}}", unknown, methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
    return made


ROUTER = _router()
