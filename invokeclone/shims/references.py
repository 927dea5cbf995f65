"""Further images of a request, next to the initial one: reference images where the model has them.

Does not depend on any one compatibility API.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.resources import Resources
from invokeclone.queue import generation
from invokeclone.queue.generation import ReferenceImageChoice, ResolvedRequest
from invokeclone.shims import image_io
from invokeclone.shims.compat_api import Warnings
from invokeclone.users.current import User


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
    limit = min(len(images), generation.architecture_of(resolved.config).capabilities.reference_images)
    choices = [ReferenceImageChoice(image="")] * limit
    try:
        async with resources.database.read() as connection:
            references = await generation.references(connection, choices, resolved.config)
        reason = f"{resolved.config.name} takes {limit} reference image{'' if limit == 1 else 's'}"
    except InvokeCloneError as error:
        references, reason = [], str(error)
    if unused := len(images) - len(references):
        used = f" and {len(references)} are references" if references else ""
        verb = "is" if unused == 1 else "are"
        count = len(images) + 1
        warnings.add(
            f"only the first image is edited{used}, {unused} of {count} images {verb} not used: {reason}", param
        )
    names = []
    for image in images[: len(references)]:
        flat = await image_io.image_work(functools.partial(image_io.flatten, image))
        names.append(await image_io.save_intermediate(resources, flat, user))
    applied = [replace(reference, image=name) for reference, name in zip(references, names, strict=True)]
    return replace(resolved, settings=replace(resolved.settings, references=applied))
