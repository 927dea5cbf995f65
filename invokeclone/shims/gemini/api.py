"""Routes of Gemini's image methods, under `/v1beta` and `/v1`."""

import math
import re

from fastapi import APIRouter, Request, Response

from invokeclone.graph.prompts import Prompt
from invokeclone.kit.requests import Needs, Read
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue import generation
from invokeclone.queue.generation import GenerationRequest, ResolvedRequest
from invokeclone.shims import image_io, init_images, usage
from invokeclone.shims.compat_api import (
    Problem,
    RequestRejected,
    check_images,
    check_prompt,
    json_response,
    read_json,
    router,
)
from invokeclone.shims.gemini.requests import ASPECTS, FORMATS, Aspect, GenerateContent, Predict
from invokeclone.shims.runs import run_until_disconnect, runs_of
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

ORIGIN = "gemini"
EDIT_STRENGTH = 0.75
_GOOGLE_MODELS = re.compile(r"(imagen|gemini|imagegeneration)", re.IGNORECASE)
"""Names of Google's own models, which clients send by default; they mean the default model."""
_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def render(problem: Problem) -> Response:
    """Return an error in Google's form."""
    status = problem.common_status
    message = problem.message if problem.param is None else f"{problem.message} ({problem.param})"
    content = {"code": status, "message": message, "status": _STATUS_NAMES.get(status, "INTERNAL")}
    return json_response({"error": content}, status, problem.headers)


class ResourceNotFound(RequestRejected):
    """The model or method does not exist."""

    status = 404


async def list_models(_caller: Caller, connection: Read) -> Response:
    """List the models that can generate images."""
    return json_response({"models": [_model(config) for config in await generation.generation_models(connection)]})


async def get_model(_caller: Caller, connection: Read, name: str) -> Response:
    """Get a model by its name or key."""
    try:
        return json_response(_model(await generation.find_model(connection, name)))
    except generation.ModelNotFound as error:
        raise ResourceNotFound(str(error)) from error


def _model(config: ModelConfig) -> dict[str, object]:
    methods = ["predict", "generateContent"]
    return {"name": f"models/{config.name}", "displayName": config.name, "supportedGenerationMethods": methods}


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
    """Generate images from the last user message, starting from the image in it, if there is one."""
    body = await read_json(request, GenerateContent, with_images=True)
    config = body.generation_config
    limits = needs.settings.limits
    check_images(config.candidate_count, limits, "generationConfig.candidateCount")
    check_prompt(prompt := body.prompt, limits, "contents")
    data = body.image_data(limits)
    image = await image_io.decode_image(needs, data, "contents") if data is not None else None
    width, height = init_images.limit_edit_size(image.size) if image else (None, None)
    generation_request = GenerationRequest(
        prompt=Prompt.plain(prompt),
        count=config.candidate_count,
        seed=config.seed,
        width=width,
        height=height,
        loras=config.loras,
    )
    resolved = await _resolve(needs, model, generation_request, config.image_config.aspect_ratio)
    if image is not None:
        resolved = await init_images.with_init_image(needs, caller, resolved, image, EDIT_STRENGTH)
    names = await _run(request, caller, resolved)
    files = [image_io.encode_base64(await image_io.read_image_file(needs, name)) for name in names]
    candidates = [
        {
            "content": {"role": "model", "parts": [{"inlineData": {"mimeType": "image/png", "data": file}}]},
            "finishReason": "STOP",
            "index": index,
        }
        for index, file in enumerate(files)
    ]
    return json_response(
        {
            "candidates": candidates,
            "usageMetadata": _usage(resolved, prompt, len(files)),
            "modelVersion": resolved.config.name,
        }
    )


async def _resolve(
    resources: Resources, model: str, generation_request: GenerationRequest, aspect: Aspect | None
) -> ResolvedRequest:
    """Resolve the open settings; an aspect ratio keeps the number of pixels of the size without it."""
    name = None if _GOOGLE_MODELS.match(model) else model
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


def _usage(resolved: ResolvedRequest, prompt: str, count: int) -> dict[str, int]:
    prompt_tokens = usage.text_tokens(prompt)
    image_tokens = count * usage.image_tokens(resolved.settings.width, resolved.settings.height)
    return {
        "promptTokenCount": prompt_tokens,
        "candidatesTokenCount": image_tokens,
        "totalTokenCount": prompt_tokens + image_tokens,
    }


async def reject_unknown_path(_caller: Caller, request: Request) -> Response:
    """Reject any other path with an error in Google's form."""
    raise ResourceNotFound(f"unknown method: {request.method} {request.url.path}")


def _build_router() -> APIRouter:
    api_router = router(render)
    for prefix in ("/v1beta", "/v1"):
        api_router.add_api_route(f"{prefix}/models/{{model:path}}:predict", predict, methods=["POST"])
        api_router.add_api_route(f"{prefix}/models/{{model:path}}:generateContent", generate_content, methods=["POST"])
    api_router.add_api_route("/v1beta/models", list_models, methods=["GET"])
    api_router.add_api_route("/v1beta/models/{name:path}", get_model, methods=["GET"])
    api_router.add_api_route(
        "/v1beta/{path:path}", reject_unknown_path, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]
    )
    return api_router


ROUTER = _build_router()
