"""Images of a request to edit: references for models that read them, else an initial image and further references.

Does not depend on any one compatibility API.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from invokeclone.graph.vocabulary.architectures import Capabilities
from invokeclone.images import image_work
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.resources import Resources
from invokeclone.queue import generation
from invokeclone.queue.generation import ReferenceImageChoice, ResolvedRequest
from invokeclone.shims import image_io, init_images
from invokeclone.shims.compat_api import Warnings
from invokeclone.users.current import User


async def with_edited_images(
    resources: Resources,
    user: User,
    resolved: ResolvedRequest,
    images: Sequence[Image.Image],
    strength: float,
    warnings: Warnings,
    param: str,
    mask: Image.Image | None = None,
) -> ResolvedRequest:
    """Return the request that edits `images`, of which there is at least one; only the masked area of the first.

    A model that reads references gets all images as such. For others the first is the initial image, with its
    denoising strength, and the rest are references as `with_reference_images` describes.
    """
    reads_references = generation.architecture_of(resolved.config).capabilities.reads_references
    references = images if reads_references else images[1:]
    resolved = await with_reference_images(resources, user, resolved, references, warnings, param)
    if reads_references and mask is None:
        return resolved
    return await init_images.with_init_image(resources, user, resolved, images[0], strength, mask)


async def with_reference_images(
    resources: Resources,
    user: User,
    resolved: ResolvedRequest,
    images: Sequence[Image.Image],
    warnings: Warnings,
    param: str,
) -> ResolvedRequest:
    """Return the request with `images` as reference images.

    Those that the model cannot take are left out, with a warning that names `param`: the model has no reference
    images, takes fewer, or lacks an installed adapter.
    """
    if not images:
        return resolved
    capabilities = generation.architecture_of(resolved.config).capabilities
    limit = min(len(images), capabilities.reference_images)
    choices = [ReferenceImageChoice(image="")] * limit
    try:
        async with resources.database.read() as connection:
            references = await generation.references(connection, choices, resolved.config)
        reason = f"{resolved.config.name} takes {limit} reference image{'' if limit == 1 else 's'}"
    except InvokeCloneError as error:
        references, reason = [], str(error)
    if len(images) > len(references):
        warnings.add(_describe_unused(len(images), len(references), reason, capabilities), param)
    names = []
    for image in images[: len(references)]:
        fitted = functools.partial(_fit, image, limited=capabilities.reads_references)
        flat = await image_work.image_work(fitted)
        names.append(await image_io.save_intermediate(resources, flat, user))
    applied = [replace(reference, image=name) for reference, name in zip(references, names, strict=True)]
    return replace(resolved, settings=replace(resolved.settings, references=applied))


def _describe_unused(count: int, used: int, reason: str, capabilities: Capabilities) -> str:
    """Return the warning that only the first `used` of `count` images are references."""
    unused = count - used
    verb = "is" if unused == 1 else "are"
    if capabilities.reads_references:
        return f"{unused} of {count} images {verb} not used: {reason}"
    references = f" and {used} are references" if used else ""
    return f"only the first image is edited{references}, {unused} of {count + 1} images {verb} not used: {reason}"


def _fit(image: Image.Image, *, limited: bool) -> Image.Image:
    """Return an image without transparency; one that the model reads is limited to the size of edited images."""
    flat = image_io.flatten(image)
    size = init_images.limit_edit_size(flat.size)
    return flat.resize(size, Image.Resampling.LANCZOS) if limited and size != flat.size else flat
