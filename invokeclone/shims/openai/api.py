"""Routes of OpenAI's Images API and its list of models, under `/v1` and under Azure's paths."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from PIL import Image

from invokeclone.graph.prompts import Prompt
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.requests import RUNNING_WORKERS, Needs, Read
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.queue import generation
from invokeclone.queue.generation import GenerationRequest, ResolvedRequest
from invokeclone.shims import image_io, init_images
from invokeclone.shims.compat_api import (
    RequestRejected,
    Warnings,
    check_images,
    check_prompt,
    json_response,
    read_json,
    router,
)
from invokeclone.shims.openai import links, responses
from invokeclone.shims.openai.errors import render
from invokeclone.shims.openai.requests import (
    STYLE_GUIDANCE,
    CommonParameters,
    Edit,
    Generation,
    PromptParameters,
    ResultField,
    VariationRequest,
    model_name_of,
    read_with_images,
)
from invokeclone.shims.openai.responses import ResponseOptions
from invokeclone.shims.references import with_edited_images
from invokeclone.shims.runs import run_until_disconnect, runs_of
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

ORIGIN = "openai"
EDIT_STRENGTH = {None: 0.75, "low": 0.75, "high": 0.5}
"""Denoising strength of edits without a mask, by `input_fidelity`."""
VARIATION_STRENGTH = 0.6


class ModelUnknown(RequestRejected):
    """No model with this name can generate images."""

    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(f"The model '{name}' does not exist", "model", "model_not_found")


class UnknownEndpoint(RequestRejected):
    """The API has no such path."""

    status = 404


@dataclass(frozen=True)
class _Job:
    """A resolved request."""

    resolved: ResolvedRequest
    response_options: ResponseOptions
    result_fields: frozenset[ResultField]
    partial: int | None
    """Previews per image of a stream; None: not a stream."""
    warnings: Warnings


# Models


async def list_models(_caller: Caller, connection: Read) -> Response:
    """List the models that can generate images."""
    times = await models.creation_times(connection)
    entries = [_model(config, times) for config in await generation.generation_models(connection)]
    return json_response({"object": "list", "data": entries})


async def get_model(_caller: Caller, connection: Read, name: str) -> Response:
    """Get a model by its name or key; names of OpenAI's models stand for the default model."""
    config = await _find(connection, model_name_of(name))
    return json_response(_model(config, await models.creation_times(connection)) | {"id": name})


async def _find(connection: Any, name: str | None) -> ModelConfig:
    try:
        return await generation.find_model(connection, name)
    except generation.ModelNotFound as error:
        raise ModelUnknown(name or "") from error


def _model(config: ModelConfig, created: Mapping[str, datetime]) -> dict[str, Any]:
    created_at = int(created[config.key].timestamp())
    return {"id": config.name, "object": "model", "created": created_at, "owned_by": "invokeclone"}


# Images


async def generate(request: Request, caller: Caller, needs: Needs) -> Response:
    """Generate images from a prompt."""
    body = await read_json(request, Generation)
    generation_request = _request_of(needs.settings.limits, body, body.prompt)
    deployment, warnings = request.path_params.get("deployment"), Warnings(request)
    job = await _job(needs, body, generation_request, deployment, "image_generation", warnings, style=body.style)
    return await _respond(request, needs, caller, job)


async def edit(request: Request, caller: Caller, needs: Needs) -> Response:
    """Generate images from a prompt and images, sent as a form or JSON.

    The first image is edited, the others are reference images, or all are, if the model reads them itself; with a mask,
    only its transparent area changes.
    """
    warnings = Warnings(request)
    body, files = await read_with_images(request, Edit, needs.settings.limits)
    images = [await image_io.decode_image(needs, data, "image") for data in files.images]
    mask = await image_io.decode_image(needs, files.mask, "mask") if files.mask is not None else None
    image = images[0]
    if mask is not None and mask.size != image.size:
        raise RequestRejected(
            f"the mask is {mask.width}x{mask.height}, but the image is {image.width}x{image.height}", "mask"
        )
    job = await _image_job(needs, request, body, body.prompt, image, warnings)
    strength = EDIT_STRENGTH[body.input_fidelity]
    resolved = await with_edited_images(needs, caller, job.resolved, images, strength, warnings, "image", mask)
    return await _respond(request, needs, caller, replace(job, resolved=resolved))


async def vary(request: Request, caller: Caller, needs: Needs) -> Response:
    """Generate variations of an image, sent as a form or JSON."""
    warnings = Warnings(request)
    body, files = await read_with_images(request, VariationRequest, needs.settings.limits)
    if len(files.images) > 1:
        raise RequestRejected("only one image can be varied at a time", "image", "too_many_images")
    image = await image_io.decode_image(needs, files.images[0], "image")
    job = await _image_job(needs, request, body, "", image, warnings)
    resolved = await init_images.with_init_image(needs, caller, job.resolved, image, VARIATION_STRENGTH)
    return await _respond(request, needs, caller, replace(job, resolved=resolved))


async def _image_job(
    resources: Resources,
    request: Request,
    body: CommonParameters,
    prompt: str,
    image: Image.Image,
    warnings: Warnings,
) -> _Job:
    """Return the job of a request with an image; the default size is the image's."""
    sides = body.sides or init_images.limit_edit_size(image.size)
    generation_request = _request_of(resources.settings.limits, body, prompt, sides)
    deployment = request.path_params.get("deployment")
    return await _job(resources, body, generation_request, deployment, "image_edit", warnings, inputs=1)


def _request_of(
    limits: Limits, body: CommonParameters, prompt: str, sides: tuple[int, int] | None = None
) -> GenerationRequest:
    width, height = sides or body.sides or (None, None)
    if width == 0 or height == 0:
        raise RequestRejected("both sides must be at least 1", "size")
    check_images(body.count, limits, "n")
    check_prompt(prompt, limits, "prompt")
    check_prompt(body.negative_prompt, limits, "negative_prompt")
    return GenerationRequest(
        prompt=Prompt.plain(prompt),
        negative_prompt=Prompt.plain(body.negative_prompt),
        count=body.count,
        seed=body.seed,
        width=width,
        height=height,
        steps=body.steps,
        cfg_scale=body.cfg_scale,
        scheduler=body.scheduler,
        loras=body.loras,
    )


async def _job(
    resources: Resources,
    body: CommonParameters,
    generation_request: GenerationRequest,
    deployment: str | None,
    kind: responses.Kind,
    warnings: Warnings,
    *,
    inputs: int = 0,
    style: str | None = None,
) -> _Job:
    """Resolve the open settings, and apply quality and style to the model's defaults."""
    if isinstance(body, PromptParameters) and body.background == "transparent":
        warnings.add("no installed model has an alpha channel: the background is opaque", "background")
    async with resources.database.read() as connection:
        config = await _find(connection, model_name_of(deployment or body.model))
        try:
            resolved = await generation.resolve(connection, generation_request, config)
        except generation.SizeOverLimits as error:
            raise RequestRejected(str(error), "size") from error
    settings = resolved.settings
    prompt_body = body if isinstance(body, PromptParameters) else None
    if body.steps is None and prompt_body:
        settings = replace(settings, steps=max(1, round(settings.steps * prompt_body.step_factor)))
    if body.cfg_scale is None and style:
        settings = replace(settings, guidance=max(1.0, settings.guidance * STYLE_GUIDANCE[style]))
    response_options = ResponseOptions(
        kind=kind,
        prompt=settings.prompt.text,
        width=settings.width,
        height=settings.height,
        format=prompt_body.format if prompt_body else "png",
        compression=prompt_body.output_compression if prompt_body else None,
        quality=prompt_body.quality if prompt_body else "auto",
        input_count=inputs,
    )
    if response_options.format == "png" and response_options.compression not in (None, 100):
        raise RequestRejected("png does not support compression below 100", "output_compression")
    stream = bool(prompt_body and prompt_body.stream)
    partial = (prompt_body.partial_images or 0) if prompt_body and stream else None
    return _Job(
        replace(resolved, settings=settings), response_options, body.result_fields(deployment), partial, warnings
    )


async def _respond(request: Request, resources: Resources, user: User, job: _Job) -> Response:
    """Run the job and return the response."""
    runs = runs_of(request)
    batch = job.resolved.batch(origin=ORIGIN)
    if job.partial is not None:
        run = await runs.enqueue(batch, user)
        events = responses.stream_events(runs, run, job.response_options, job.partial)
        headers = {"Cache-Control": "no-cache", **job.warnings.headers}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)
    async with runs.running(batch, user) as run:
        names = await run_until_disconnect(request, run.image_names())
    addresses = None
    if "url" in job.result_fields:
        addresses = await links.make(request, resources, names, job.response_options.format)
    with_base64 = "b64_json" in job.result_fields
    content = await responses.complete_response(
        resources, job.response_options, names, addresses, with_base64=with_base64
    )
    if job.warnings.texts:
        content["warnings"] = job.warnings.texts
    return json_response(content, headers=job.warnings.headers)


async def get_linked_image(needs: Needs, token: str) -> Response:
    """Get an image by a link from an earlier response; no key is needed."""
    name, kind = await links.read(needs, token)
    data = await image_io.read_image_file(needs, name, kind)
    return Response(data, media_type=image_io.MIME[kind], headers={"Cache-Control": "private, max-age=3600"})


async def reject_unknown_path(_caller: Caller, request: Request, path: str) -> Response:  # noqa: ARG001
    """Reject any other path with an error in OpenAI's form."""
    raise UnknownEndpoint(f"Unknown request URL: {request.method} {request.url.path}", None, "unknown_url")


def _add_image_routes(api_router: APIRouter, prefix: str) -> None:
    for name, endpoint in (("generations", generate), ("edits", edit), ("variations", vary)):
        path = f"{prefix}/images/{name}"
        api_router.add_api_route(path, endpoint, methods=["POST"], dependencies=[RUNNING_WORKERS])


def _build_router() -> APIRouter:
    api_router = router(render)
    _add_image_routes(api_router, "/openai/deployments/{deployment}")
    for prefix in ("/v1", "/openai/v1", "/openai"):
        _add_image_routes(api_router, prefix)
        api_router.add_api_route(f"{prefix}/models", list_models, methods=["GET"])
        api_router.add_api_route(f"{prefix}/models/{{name:path}}", get_model, methods=["GET"])
        api_router.add_api_route(f"{prefix}/images/files/{{token}}", get_linked_image, methods=["GET"])
    for prefix in ("/v1", "/openai"):
        api_router.add_api_route(
            f"{prefix}/{{path:path}}", reject_unknown_path, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]
        )
    return api_router


ROUTER = _build_router()
