"""Routes of Gemini's image methods, under `/v1beta` and `/v1`."""

import math
import re

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Scope

from invokeclone.graph.prompts import Prompt
from invokeclone.images import image_work
from invokeclone.kit.requests import RUNNING_WORKERS, Needs, Read
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
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
from invokeclone.shims.gemini.requests import ASPECTS, FORMATS, Aspect, GenerateContent, Predict
from invokeclone.shims.gemini.responses import ContentResult, as_array, as_events, render, stream_images
from invokeclone.shims.references import with_edited_images
from invokeclone.shims.runs import run_until_disconnect, runs_of
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

ORIGIN = "gemini"
EDIT_STRENGTH = 0.75
_GOOGLE_MODELS = re.compile(r"(imagen|gemini|imagegeneration)", re.IGNORECASE)
"""Names of Google's own models, which clients send by default; they mean the default model."""


class ResourceNotFound(RequestRejected):
    """The model or method does not exist."""

    status = 404


async def list_models(_caller: Caller, connection: Read) -> Response:
    """List the models that can generate images."""
    return json_response({"models": [_model(config) for config in await generation.generation_models(connection)]})


async def get_model(_caller: Caller, connection: Read, name: str) -> Response:
    """Get a model by its name or key; names of Google's models stand for the default model."""
    try:
        config = await generation.find_model(connection, _model_name(name))
    except generation.ModelNotFound as error:
        raise ResourceNotFound(str(error)) from error
    return json_response(_model(config) | {"name": f"models/{name}"})


def _model_name(name: str) -> str | None:
    """Return the name of the requested model; None: the default model."""
    return None if _GOOGLE_MODELS.match(name) else name


def _model(config: ModelConfig) -> dict[str, object]:
    methods = ["predict", "generateContent", "streamGenerateContent"]
    return {
        "name": f"models/{config.name}",
        "baseModelId": config.name,
        "version": config.key,
        "displayName": config.name,
        "description": config.description or "",
        "supportedGenerationMethods": methods,
    }


async def predict(request: Request, caller: Caller, needs: Needs, model: str) -> Response:
    """Generate images from a prompt."""
    body = await read_json(request, Predict, with_images=True)
    if body.instances.image is not None:
        raise RequestRejected("use generateContent to edit images", "instances.image")
    parameters, limits = body.parameters, needs.settings.limits
    check_images(parameters.sample_count, limits, "parameters.sampleCount")
    check_prompt(body.instances.prompt, limits, "instances.prompt")
    check_prompt(parameters.negative_prompt, limits, "parameters.negativePrompt")
    generation_request = GenerationRequest(
        prompt=Prompt.plain(body.instances.prompt),
        negative_prompt=Prompt.plain(parameters.negative_prompt),
        count=parameters.sample_count,
        seed=parameters.seed,
        loras=parameters.loras,
    )
    resolved = await _resolve(needs, model, generation_request, parameters.aspect_ratio)
    names = await _run(request, caller, resolved)
    options = parameters.output_options
    files = [
        await image_io.read_image_file(needs, n, FORMATS[options.mime_type], options.compression_quality) for n in names
    ]
    predictions = [
        {"mimeType": options.mime_type, "bytesBase64Encoded": image_io.encode_base64(file)} for file in files
    ]
    return json_response({"predictions": predictions})


async def generate_content(request: Request, caller: Caller, needs: Needs, model: str) -> Response:
    """Generate images from the last user message.

    Its first image is edited, the others are reference images, or all are, if the model reads them itself. Without any,
    the model's previous image is edited.
    """
    warnings = Warnings(request)
    result = await _content(request, caller, needs, model, warnings)
    names = await _run(request, caller, result.resolved)
    return json_response(await result.response(names), headers=warnings.headers)


async def stream_content(request: Request, caller: Caller, needs: Needs, model: str) -> Response:
    """Generate images like `generateContent`, as a stream with an image per response: a JSON array, or events."""
    warnings = Warnings(request)
    result = await _content(request, caller, needs, model, warnings)
    runs = runs_of(request)
    images = stream_images(runs, await runs.enqueue(result.resolved.batch(origin=ORIGIN), caller), result)
    headers = {"Cache-Control": "no-cache", **warnings.headers}
    if request.query_params.get("alt") == "sse":
        return StreamingResponse(as_events(images), media_type="text/event-stream", headers=headers)
    return StreamingResponse(as_array(images), media_type="application/json", headers=headers)


async def _content(request: Request, user: User, resources: Resources, model: str, warnings: Warnings) -> ContentResult:
    """Return the resolved request of `generateContent`, with its images stored."""
    body = await read_json(request, GenerateContent, with_images=True)
    config = body.generation_config
    limits = resources.settings.limits
    check_images(config.candidate_count, limits, "generationConfig.candidateCount")
    check_prompt(prompt := body.prompt, limits, "contents")
    files = await image_work.image_work(lambda: body.image_files(limits))
    images = [await image_io.decode_image(resources, data, "contents") for data in files]
    width, height = init_images.limit_edit_size(images[0].size) if images else (None, None)
    generation_request = GenerationRequest(
        prompt=Prompt.plain(prompt),
        count=config.candidate_count,
        seed=config.seed,
        width=width,
        height=height,
        loras=config.loras,
    )
    resolved = await _resolve(resources, model, generation_request, config.image_config.aspect_ratio)
    if images:
        resolved = await with_edited_images(resources, user, resolved, images, EDIT_STRENGTH, warnings, "contents")
    return ContentResult(resources, resolved, prompt)


async def _resolve(
    resources: Resources, model: str, generation_request: GenerationRequest, aspect: Aspect | None
) -> ResolvedRequest:
    """Resolve the open settings; an aspect ratio keeps the number of pixels of the size without it."""
    name = _model_name(model)
    async with resources.database.read() as connection:
        try:
            config = await generation.find_model(connection, name)
        except generation.ModelNotFound as error:
            raise ResourceNotFound(f"models/{model} is not found") from error
        resolved = await generation.resolve(connection, generation_request, config)
        if aspect is None:
            return resolved
        ratio_width, ratio_height = ASPECTS[aspect]
        unit = math.sqrt(resolved.settings.width * resolved.settings.height / (ratio_width * ratio_height))
        size = {"width": round(ratio_width * unit), "height": round(ratio_height * unit)}
        return await generation.resolve(connection, generation_request.model_copy(update=size), config)


async def _run(request: Request, user: User, resolved: ResolvedRequest) -> list[str]:
    async with runs_of(request).running(resolved.batch(origin=ORIGIN), user) as run:
        return await run_until_disconnect(request, run.image_names())


async def reject_unknown_path(_caller: Caller, request: Request) -> Response:
    """Reject any other path with an error in Google's form."""
    raise ResourceNotFound(f"unknown method: {request.method} {request.url.path}")


def _is_google_client(scope: Scope) -> bool:
    """Return whether a request has a key, or the client's description, where Google's clients put them."""
    headers = Headers(scope=scope)
    return any(name in headers for name in ("x-goog-api-key", "x-goog-api-client")) or b"key=" in scope["query_string"]


def _add_model_routes(api_router: APIRouter, prefix: str) -> None:
    """Add the list of models, and the rejection of other paths."""
    api_router.add_api_route(f"{prefix}/models", list_models, methods=["GET"])
    api_router.add_api_route(f"{prefix}/models/{{name:path}}", get_model, methods=["GET"])
    _add_rejection(api_router, prefix)


def _add_rejection(api_router: APIRouter, prefix: str) -> None:
    api_router.add_api_route(
        f"{prefix}/{{path:path}}", reject_unknown_path, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]
    )


def _build_router() -> APIRouter:
    api_router = router(render)
    methods = {"predict": predict, "generateContent": generate_content, "streamGenerateContent": stream_content}
    for prefix in ("/v1beta", "/v1", "/v1beta1/publishers/google", "/v1/publishers/google"):
        for name, endpoint in methods.items():
            path = f"{prefix}/models/{{model:path}}:{name}"
            api_router.add_api_route(path, endpoint, methods=["POST"], dependencies=[RUNNING_WORKERS])
    _add_model_routes(api_router, "/v1beta")
    _add_rejection(api_router, "/v1beta1")
    return api_router


def _build_shared_router() -> APIRouter:
    """Return the routes under paths that OpenAI's API has too; they serve only Google's clients."""
    api_router = router(render, accepts=_is_google_client)
    _add_model_routes(api_router, "/v1")
    return api_router


ROUTER = _build_router()
SHARED = _build_shared_router()
