"""Sizes of the initial image and mask of a request: they and the result must agree before anything is enqueued."""

from dataclasses import replace

from invokeclone.images import service as images
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation.errors import InvalidGeneration
from invokeclone.queue.generation.request import GenerationRequest
from invokeclone.queue.generation.resolution import ResolvedRequest, resolve

MAX_PIXELS = 1024 * 1024
"""Maximum number of pixels of the result if the request has an initial image but no size."""


async def resolve_with_images(resources: Resources, request: GenerationRequest) -> ResolvedRequest:
    """Resolve a request whose images are stored; the user must be allowed to read them.

    The result has the size of the initial image if the request has none; an initial image of another size is resized,
    with its mask. Raises the errors of `resolve`, ImageNotFound, and InvalidGeneration for a mask that has neither the
    size of the initial image nor that of the result.
    """
    if request.init_image is None:
        return await _resolve(resources, request)
    size = await _size(resources, request.init_image.image)
    if request.width is None and request.height is None:
        scale = min(1.0, (MAX_PIXELS / (size[0] * size[1])) ** 0.5)
        width, height = (max(1, round(side * scale)) for side in size)
        request = request.model_copy(update={"width": width, "height": height})
    resolved = await _resolve(resources, request)
    settings = resolved.settings
    if request.inpaint_mask is not None:
        mask = await _size(resources, request.inpaint_mask.mask)
        if mask not in (size, (settings.width, settings.height)):
            raise InvalidGeneration(
                f"the mask is {mask[0]}x{mask[1]} and the initial image {size[0]}x{size[1]}: the mask must have the size "
                f"of the image or of the result, {settings.width}x{settings.height}"
            )
    if settings.init_image is None or size == (settings.width, settings.height):
        return resolved
    return replace(resolved, settings=replace(settings, init_image=replace(settings.init_image, resize=True)))


async def _resolve(resources: Resources, request: GenerationRequest) -> ResolvedRequest:
    async with resources.database.read() as connection:
        return await resolve(connection, request)


async def _size(resources: Resources, name: str) -> tuple[int, int]:
    return await images.upright_size(resources, await images.get(resources, name))
