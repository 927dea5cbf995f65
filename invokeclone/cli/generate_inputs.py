"""Arguments of `invokeclone generate` for added models and images: LoRAs, controls, references, the initial image."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from invokeclone.cli.main import CommandError
from invokeclone.images import image_work
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import ResolvedRequest
from invokeclone.shims import image_io, init_images
from invokeclone.users.current import SYSTEM

STRENGTH = 0.75


@dataclass(frozen=True)
class NamedFile:
    """An image file and the model that uses it; without a model, the first compatible one."""

    model: str | None
    file: Path


def request_members(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a GenerationRequest for added models; images are named by their file paths."""
    return {
        "loras": [_lora(text) for text in arguments.lora],
        "controls": [{"model": named_file.model, "image": str(named_file.file)} for named_file in _controls(arguments)],
        "reference_images": [
            {"model": named_file.model, "image": str(named_file.file)} for named_file in _references(arguments)
        ],
        "refiner": {"model": arguments.refiner} if arguments.refiner else None,
    }


def _lora(text: str) -> dict[str, Any]:
    """Parse NAME or NAME:WEIGHT; text after a colon that is not a number belongs to the name."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return {"model": text}
    try:
        return {"model": name, "weight": float(weight)}
    except ValueError:
        return {"model": text}


def _controls(arguments: argparse.Namespace) -> list[NamedFile]:
    named = [_parse_named_file(text) for text in arguments.control]
    for text, named_file in zip(arguments.control, named, strict=True):
        if named_file.model is None:
            raise CommandError(f"--control {text}: must be NAME:FILE")
    return named


def _references(arguments: argparse.Namespace) -> list[NamedFile]:
    return [_parse_named_file(text) for text in arguments.reference]


def _parse_named_file(text: str) -> NamedFile:
    """Parse FILE or NAME:FILE; an existing file named by the whole text takes precedence."""
    model, _, file = text.partition(":")
    return NamedFile(None, Path(text)) if not file or Path(text).exists() else NamedFile(model, Path(file))


async def with_images(
    resources: Resources, resolved: ResolvedRequest, arguments: argparse.Namespace
) -> ResolvedRequest:
    """Return the request with its images, stored as intermediates once all of them are read. Raises CommandError."""
    if arguments.mask and not arguments.init:
        raise CommandError("--mask requires --init, the image to repaint")
    settings = resolved.settings
    files = [item.image for item in settings.controls] + [item.image for item in settings.references]
    followed = [await _read(resources, Path(str(file))) for file in files]
    initial = await _read(resources, arguments.init) if arguments.init else None
    mask = await _read(resources, arguments.mask) if arguments.mask else None
    names = iter([await image_io.save_intermediate(resources, image, SYSTEM) for image in followed])
    controls = [replace(item, image=next(names)) for item in settings.controls]
    references = [replace(item, image=next(names)) for item in settings.references]
    resolved = replace(resolved, settings=replace(settings, controls=controls, references=references))
    if initial is None:
        return resolved
    strength = STRENGTH if arguments.strength is None else arguments.strength
    resolved = await init_images.with_init_image(resources, SYSTEM, resolved, initial, strength, mask)
    if mask is None or arguments.strength is None or resolved.settings.init_image is None:
        return resolved
    init_image = replace(resolved.settings.init_image, strength=strength)
    return replace(resolved, settings=replace(resolved.settings, init_image=init_image))


async def _read(resources: Resources, file: Path) -> Image.Image:
    try:
        data = await image_work.image_work(file.read_bytes)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    return await image_io.decode_image(resources, data, str(file))
