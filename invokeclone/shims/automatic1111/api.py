"""Routes of AUTOMATIC1111's API."""

from typing import Any

from fastapi import Request, Response

from invokeclone.graph.recipes import recipes
from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.images import image_work
from invokeclone.kit.errors import Forbidden, NotFound
from invokeclone.kit.requests import RUNNING_WORKERS, Needs, NeedsWorkers, Read
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import caches
from invokeclone.models.records import store as models
from invokeclone.queue.generation import generation_models
from invokeclone.shims import image_io
from invokeclone.shims.automatic1111 import controlnet, extras, generate, infotext, jobs, options, samplers, system
from invokeclone.shims.automatic1111.generate import RequestContext
from invokeclone.shims.automatic1111.jobs import jobs_of
from invokeclone.shims.automatic1111.plan import LATENT_MODES, UPSCALERS
from invokeclone.shims.automatic1111.schemas import ImageToImage, ReadInfo, TextToImage, UpscaleImage, UpscaleImages
from invokeclone.shims.compat_api import Problem, Warnings, check_images, json_response, read_json, read_object, router
from invokeclone.shims.runs import run_until_disconnect, runs_of
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

UNAUTHORIZED = 401


def render(problem: Problem) -> Response:
    """Return an error in A1111's form."""
    headers = dict(problem.headers)
    if problem.status == UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="invokeclone"'
    content = {"error": "HTTPException", "detail": problem.message, "body": "", "errors": problem.message}
    return json_response(content, problem.status, headers)


class UnloadingForbidden(Forbidden):
    """Unloading models requires an administrator."""

    def __init__(self) -> None:
        super().__init__("only an administrator may unload models")


class FeatureNotFound(NotFound):
    """The API has no such path here."""


ROUTER = router(render, prefix="/sdapi/v1")
CONTROLNET = router(render, prefix="/controlnet")
CONTROLNET.get("/model_list")(controlnet.list_models)
CONTROLNET.get("/module_list")(controlnet.list_modules)
CONTROLNET.get("/version")(controlnet.get_version)


def _context(request: Request, needs: Resources, user: User) -> RequestContext:
    return RequestContext(needs, runs_of(request), jobs_of(request), user, Warnings(request))


# Images


@ROUTER.post("/txt2img", dependencies=[RUNNING_WORKERS])
async def text_to_image(request: Request, caller: Caller, needs: Needs) -> Response:
    """Generate images from a prompt."""
    body = await read_json(request, TextToImage, with_images=True)
    context = _context(request, needs, caller)
    content = await run_until_disconnect(request, generate.text_to_image(context, body))
    return json_response(content, headers=context.warnings.headers)


@ROUTER.post("/img2img", dependencies=[RUNNING_WORKERS])
async def image_to_image(request: Request, caller: Caller, needs: Needs) -> Response:
    """Generate images from a prompt and an initial image."""
    body = await read_json(request, ImageToImage, with_images=True)
    context = _context(request, needs, caller)
    content = await run_until_disconnect(request, generate.image_to_image(context, body))
    return json_response(content, headers=context.warnings.headers)


@ROUTER.post("/extra-single-image")
async def upscale_image(request: Request, caller: Caller, needs: Needs) -> Response:
    """Upscale an image."""
    body = await read_json(request, UpscaleImage, with_images=True)
    extras.refuse_unsupported(body)
    async with needs.database.read() as connection:
        format = (await options.load(connection, caller)).format  # noqa: A001  (the option's name)
    return json_response(
        {"html_info": "", "image": await extras.upscale_base64(needs, body.image, body, format, "image")}
    )


@ROUTER.post("/extra-batch-images")
async def upscale_images(request: Request, caller: Caller, needs: Needs) -> Response:
    """Upscale several images."""
    body = await read_json(request, UpscaleImages, with_images=True)
    extras.refuse_unsupported(body)
    check_images(len(body.image_list), needs.settings.limits, "imageList")
    async with needs.database.read() as connection:
        format = (await options.load(connection, caller)).format  # noqa: A001  (the option's name)
    upscaled = [await extras.upscale_base64(needs, item.data, body, format, "imageList") for item in body.image_list]
    return json_response({"html_info": "", "images": upscaled})


@ROUTER.post("/png-info")
async def read_info(request: Request, _caller: Caller, needs: Needs) -> Response:
    """Read the generation parameters embedded in an image."""
    body = await read_json(request, ReadInfo, with_images=True)
    limits = needs.settings.limits
    data = await image_work.image_work(lambda: image_io.decode_base64(body.image, "image", limits))
    with image_io.translate_image_errors("image"):
        text, items = await image_work.image_work(lambda: infotext.read_infotext(data, limits))
    return json_response({"info": text, "items": items, "parameters": infotext.parse(text) if text else {}})


# Running jobs


@ROUTER.get("/progress")
async def get_progress(
    request: Request,
    caller: Caller,
    skip_current_image: bool = False,
) -> Response:
    """Get the progress of the caller's generation."""
    job = await jobs_of(request).find(caller)
    return json_response(jobs.progress(job, with_image=not skip_current_image))


@ROUTER.post("/interrupt")
async def interrupt(request: Request, caller: Caller) -> Response:
    """Stop the caller's generation; its request returns the images that are finished."""
    if job := await jobs_of(request).find(caller):
        await job.interrupt()
    return json_response({})


@ROUTER.post("/skip")
async def skip(request: Request, caller: Caller) -> Response:
    """Skip the image that the caller's generation is working on."""
    if job := await jobs_of(request).find(caller):
        await job.skip()
    return json_response(None)


# Options


@ROUTER.get("/options")
async def get_options(caller: Caller, connection: Read) -> Response:
    """Get the caller's options."""
    return json_response(await options.describe(connection, await options.load(connection, caller)))


@ROUTER.post("/options")
async def set_options(request: Request, caller: Caller, needs: Needs) -> Response:
    """Set the caller's options; unsupported ones are ignored."""
    values = await read_object(request)
    async with needs.database.write() as connection:
        current = await options.load(connection, caller)
        await options.save(connection, caller, await options.apply_changes(connection, current, values))
    return json_response(None)


# Lists


@ROUTER.get("/sd-models")
async def list_checkpoints(_caller: Caller, connection: Read) -> Response:
    """List the models that can generate images."""
    return json_response(
        [options.describe_checkpoint(config) for config in await generation_models(connection, refiners=True)]
    )


@ROUTER.get("/sd-vae")
@ROUTER.get("/sd-modules")
async def list_vaes(_caller: Caller, connection: Read) -> Response:
    """List the VAEs."""
    configs = await models.search(connection, type=ModelType.VAE)
    return json_response([{"model_name": config.name, "filename": config.path} for config in configs])


@ROUTER.get("/loras")
async def list_loras(_caller: Caller, connection: Read) -> Response:
    """List the LoRAs, which prompts apply as `<lora:name:weight>`."""
    configs = await models.search(connection, type=ModelType.LoRA)
    return json_response(
        [{"name": config.name, "alias": config.name, "path": config.path, "metadata": {}} for config in configs]
    )


@ROUTER.get("/embeddings")
async def list_embeddings(_caller: Caller, connection: Read) -> Response:
    """List the textual inversions, which prompts apply by name; those for unsupported bases are under `skipped`."""
    configs = await models.search(connection, type=ModelType.TextualInversion)
    embeddings: dict[str, dict[str, Any]] = {"loaded": {}, "skipped": {}}
    for config in configs:
        embeddings["loaded" if config.base in recipes() else "skipped"][config.name] = _embedding(config)
    return json_response(embeddings)


def _embedding(config: ModelConfig) -> dict[str, Any]:
    return {
        "step": None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
        "shape": 0,
        "vectors": 0,
        "name": config.name,
    }


@ROUTER.get("/samplers")
async def list_samplers(_caller: Caller) -> Response:
    """List the samplers."""
    return json_response(samplers.describe_samplers())


@ROUTER.get("/schedulers")
async def list_schedules(_caller: Caller) -> Response:
    """List the schedule types."""
    return json_response(samplers.describe_schedules())


@ROUTER.get("/upscalers")
async def list_upscalers(_caller: Caller) -> Response:
    """List the upscalers."""
    common_fields = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
    return json_response([{"name": name, **common_fields} for name in UPSCALERS])


@ROUTER.get("/latent-upscale-modes")
async def list_latent_upscalers(_caller: Caller) -> Response:
    """List the latent upscale modes."""
    return json_response([{"name": name} for name in LATENT_MODES])


@ROUTER.get("/hypernetworks")
@ROUTER.get("/face-restorers")
@ROUTER.get("/realesrgan-models")
@ROUTER.get("/prompt-styles")
@ROUTER.get("/script-info")
async def list_nothing(_caller: Caller) -> Response:
    """Return an empty list: the feature is not supported."""
    return json_response([])


@ROUTER.get("/scripts")
async def list_scripts(_caller: Caller) -> Response:
    """List the scripts."""
    return json_response({"txt2img": [controlnet.SCRIPT], "img2img": [controlnet.SCRIPT]})


# Server


@ROUTER.get("/memory")
async def get_memory(_caller: Caller, workers: NeedsWorkers) -> Response:
    """Get the memory of this machine and of the first worker's GPU, in bytes."""
    return json_response(await system.describe_memory(workers))


@ROUTER.get("/cmd-flags")
async def get_flags(_caller: Caller, needs: Needs) -> Response:
    """Get the settings of this server that A1111 has as command line flags."""
    return json_response(system.describe_flags(needs.settings))


@ROUTER.post("/unload-checkpoint")
async def unload_checkpoint(caller: Caller, workers: NeedsWorkers) -> Response:
    """Unload the models that the workers are not using."""
    if not caller.is_admin:
        raise UnloadingForbidden
    await caches.empty_caches(workers)
    return json_response({})


@ROUTER.post("/reload-checkpoint")
async def reload_checkpoint(_caller: Caller) -> Response:
    """Do nothing: the next generation loads its models."""
    return json_response({})


@ROUTER.post("/refresh-checkpoints")
@ROUTER.post("/refresh-vae")
@ROUTER.post("/refresh-loras")
async def refresh(_caller: Caller) -> Response:
    """Do nothing: the lists are always up to date."""
    return json_response(None)


@ROUTER.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
@CONTROLNET.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
async def reject_unknown_path(_caller: Caller, request: Request, path: str) -> Response:  # noqa: ARG001
    """Reject any other path, naming it."""
    raise FeatureNotFound(f"this server does not have {request.method} {request.url.path}")
