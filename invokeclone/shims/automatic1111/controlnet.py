"""ControlNet units as the sd-webui-controlnet extension defines them: in `alwayson_scripts`, and the lists for clients.

Units are ControlNets and T2I-Adapters, or IP-Adapters if they have an IP-Adapter module.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fastapi import Response
from PIL import Image
from pydantic import Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import (
    AppliedControl,
    ControlKind,
    ControlMode,
    ControlResize,
    Preprocessor,
    ReferenceImage,
)
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import image_work
from invokeclone.kit.requests import Read
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import (
    CONTROLS,
    IP_ADAPTERS,
    ControlChoice,
    ReferenceImageChoice,
    ResolvedRequest,
)
from invokeclone.shims import image_io
from invokeclone.shims.automatic1111 import preprocessors
from invokeclone.shims.automatic1111.options import without_hash
from invokeclone.shims.automatic1111.schemas import Body, Generate, ImageToImage, UnitFloat
from invokeclone.shims.compat_api import RequestRejected, json_response
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

SCRIPT = "controlnet"
"""The script's name in `alwayson_scripts`; case is ignored."""
PARAM = "alwayson_scripts"
API_VERSION = 2
_MODES: dict[str, ControlMode] = {
    "0": "balanced",
    "balanced": "balanced",
    "1": "more_prompt",
    "my prompt is more important": "more_prompt",
    "2": "more_control",
    "controlnet is more important": "more_control",
}
_RESIZES: dict[str, ControlResize] = {
    "0": "just_resize",
    "just resize": "just_resize",
    "1": "crop_resize",
    "crop and resize": "crop_resize",
    "inner fit (scale to fit)": "crop_resize",
    "scale to fit (inner fit)": "crop_resize",
    "2": "fill_resize",
    "resize and fill": "fill_resize",
    "outer fit (shrink to fit)": "fill_resize",
    "envelope (outer fit)": "fill_resize",
}


_KINDS: dict[str, ControlKind | None] = {
    "unknown": None,
    "openpose": "pose",
    "depth": "depth",
    "soft edge": "soft_edge",
    "hard edge": "canny",
    "normal map": "normal",
    "segmentation": "segmentation",
    "tile": "tile",
    "inpaint": "inpaint",
}
"""The extension's types of union ControlNets."""


class ControlNetUnit(Body):
    """A model with its image and settings; without an image, the unit uses the initial image."""

    enabled: bool = True
    module: str | None = None
    model: str | None = None
    weight: float = Field(default=1.0, ge=0, le=2)
    image: str | dict[Literal["image", "mask"], str | None] | None = None
    input_image: str | None = None
    mask: str | None = None
    mask_image: str | None = None
    effective_region_mask: str | None = None
    resize_mode: int | str = "Crop and Resize"
    control_mode: int | str = "Balanced"
    guidance_start: UnitFloat = 0.0
    guidance_end: UnitFloat = 1.0
    processor_res: int = Field(default=-1, le=preprocessors.MAX_RESOLUTION)
    threshold_a: float = -1
    threshold_b: float = -1
    pixel_perfect: bool = False
    union_control_type: str = "Unknown"

    @property
    def is_reference(self) -> bool:
        """Whether the unit is an IP-Adapter."""
        return preprocessors.is_ip_adapter(self.module)

    @property
    def data(self) -> str | None:
        """The image as base64, from whichever field the client uses."""
        image = self.image.get("image") if isinstance(self.image, dict) else self.image
        return image or self.input_image or None

    @property
    def has_mask(self) -> bool:
        """Whether a part of the image is masked; the region of a reference image does not count."""
        image_mask = self.image.get("mask") if isinstance(self.image, dict) else None
        region = None if self.is_reference else self.effective_region_mask
        return bool(image_mask or self.mask or self.mask_image or region)

    @property
    def preprocessor(self) -> Preprocessor | None:
        """The preprocessor of the image; raises ValueError for thresholds out of range."""
        module = preprocessors.MODULES.get(preprocessors.normalize_name(self.module))
        return module.preprocessor(self.threshold_a, self.threshold_b) if module else None

    def prepare_image(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return the image as its preprocessor takes it, for a result of `size`."""
        module = preprocessors.MODULES.get(preprocessors.normalize_name(self.module))
        if module is None or not module.resizes:
            return image
        contain = _RESIZES[_normalize_mode(self.resize_mode)] == "fill_resize"
        target = size if self.pixel_perfect else None
        return preprocessors.resize_to_resolution(image, self.processor_res, target, contain=contain)


def units(request: Generate) -> list[ControlNetUnit]:
    """Return the enabled units; raises RequestRejected for invalid or unsupported ones."""
    scripts = [script for name, script in request.alwayson_scripts.items() if name.casefold() == SCRIPT]
    entries = [unit for script in scripts for unit in _args(script)]
    enabled = []
    for number, fields in enumerate(entries):
        if not isinstance(fields, dict):
            raise RequestRejected(f"ControlNet unit {number}: must be an object", PARAM)
        try:
            unit = ControlNetUnit.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            problem = error.errors()[0]
            raise RequestRejected(f"ControlNet unit {number}: {problem['loc'][0]}: {problem['msg']}", PARAM) from error
        if unit.enabled:
            _refuse_unsupported(number, unit, request)
            enabled.append(unit)
    return enabled


def _args(script: Any) -> list[Any]:
    args = script.get("args") if isinstance(script, dict) else script
    if not isinstance(args, list | None):
        raise RequestRejected("ControlNet: `args` must be a list of units", PARAM)
    return args or []


def _refuse_unsupported(number: int, unit: ControlNetUnit, request: Generate) -> None:
    """Raise RequestRejected for the first unsupported setting of a unit."""
    only_masked = isinstance(request, ImageToImage) and request.mask and request.inpaint_full_res
    unknown = preprocessors.find_problem(unit.module)
    problems = (
        (unknown is not None, unknown),
        (preprocessors.normalize_name(unit.model) in preprocessors.NONE, "the model is missing"),
        (unit.has_mask, "masks are not supported"),
        (only_masked and not unit.is_reference, "not supported together with `inpaint_full_res`; set it to false"),
        (unit.data is None and not isinstance(request, ImageToImage), "the image is missing"),
        (_normalize_mode(unit.resize_mode) not in _RESIZES, f"unknown resize_mode {unit.resize_mode!r}"),
        (_normalize_mode(unit.control_mode) not in _MODES, f"unknown control_mode {unit.control_mode!r}"),
        (
            _normalize_mode(unit.union_control_type) not in _KINDS,
            f"unknown union_control_type {unit.union_control_type!r}; there are: {', '.join(_KINDS)}",
        ),
    )
    for applies, reason in problems:
        if applies:
            raise RequestRejected(f"ControlNet unit {number}: {reason}", PARAM)
    try:
        _ = unit.preprocessor
    except ValueError as error:
        raise RequestRejected(f"ControlNet unit {number}: {error}", PARAM) from error


def _normalize_mode(mode: int | str) -> str:
    return str(mode).strip().casefold()


def control_choices(request: Generate) -> list[ControlChoice]:
    """Return the ControlNet and T2I-Adapter units as choices without images; raises RequestRejected."""
    return [
        ControlChoice(
            model=without_hash(unit.model or ""),
            image="",
            weight=unit.weight,
            begin=unit.guidance_start,
            end=unit.guidance_end,
            mode=_MODES[_normalize_mode(unit.control_mode)],
            resize=_RESIZES[_normalize_mode(unit.resize_mode)],
            kind=_KINDS[_normalize_mode(unit.union_control_type)],
        )
        for unit in units(request)
        if not unit.is_reference
    ]


def reference_choices(request: Generate) -> list[ReferenceImageChoice]:
    """Return the IP-Adapter units as choices without images; raises RequestRejected."""
    return [
        ReferenceImageChoice(
            model=without_hash(unit.model or ""),
            image="",
            weight=unit.weight,
            begin=unit.guidance_start,
            end=unit.guidance_end,
            image_encoder=preprocessors.IP_ADAPTER_MODULES[preprocessors.normalize_name(unit.module)],
        )
        for unit in units(request)
        if unit.is_reference
    ]


async def with_images(
    resources: Resources, user: User, resolved: ResolvedRequest, request: Generate
) -> ResolvedRequest:
    """Store the units' images and return the request with their names. Raises RequestRejected for invalid images."""
    settings = resolved.settings
    enabled_units = units(request)
    images = [await _decode_image(resources, unit.data or _first_init_image(request)) for unit in enabled_units]
    regions = [
        await _decode_image(resources, unit.effective_region_mask) if unit.effective_region_mask else None
        for unit in enabled_units
    ]
    pending_controls, pending_references = iter(settings.controls), iter(settings.references)
    controls: list[AppliedControl] = []
    references: list[ReferenceImage] = []
    for unit, image, region in zip(enabled_units, images, regions, strict=True):
        if unit.is_reference:
            mask = await image_io.save_intermediate(resources, region, user, ImageCategory.MASK) if region else None
            name = await image_io.save_intermediate(resources, image, user)
            references.append(replace(next(pending_references), image=name, mask=mask))
        else:
            size = settings.width, settings.height
            name = await image_io.save_intermediate(
                resources, await image_work.image_work(partial(unit.prepare_image, image, size)), user
            )
            controls.append(replace(next(pending_controls), image=name, preprocessor=unit.preprocessor))
    return replace(resolved, settings=replace(settings, controls=controls, references=references))


def _first_init_image(request: Generate) -> str:
    return request.init_images[0] if isinstance(request, ImageToImage) and request.init_images else ""


async def _decode_image(resources: Resources, text: str) -> Image.Image:
    data = await image_work.image_work(lambda: image_io.decode_base64(text, PARAM, resources.settings.limits))
    return await image_io.decode_image(resources, data, PARAM)


def description(resolved: ResolvedRequest) -> dict[str, str]:
    """Return the infotext entries of the units."""
    settings = resolved.settings
    texts = [
        f"{_common(control)}, Resize Mode: {_mode_name(_RESIZES, control.resize)}, "
        f"Control Mode: {_mode_name(_MODES, control.mode)}"
        for control in settings.controls
    ]
    texts += [_common(reference) for reference in settings.references]
    return {f"ControlNet {number}": text for number, text in enumerate(texts)}


def _common(unit: AppliedControl | ReferenceImage) -> str:
    name = unit.model["name"] if unit.model else "None"
    return f"Model: {name}, Weight: {unit.weight}, Guidance Start: {unit.begin}, Guidance End: {unit.end}"


def _mode_name(names: Any, value: str) -> str:
    return next(str(name) for name, entry in names.items() if entry == value and not name.isdigit()).title()


async def model_names(connection: AsyncConnection) -> Sequence[str]:
    """Return the names of the ControlNets, T2I-Adapters and IP-Adapters."""
    return [config.name for kind in (CONTROLS, IP_ADAPTERS) for config in await kind.list_installed(connection)]


async def list_models(_caller: Caller, connection: Read) -> Response:
    """List the ControlNets, T2I-Adapters and IP-Adapters."""
    return json_response({"model_list": await model_names(connection)})


async def list_modules(_caller: Caller) -> Response:
    """List the preprocessors."""
    return json_response(preprocessors.describe_modules())


async def get_version(_caller: Caller) -> Response:
    """Get the version of the extension's API."""
    return json_response({"version": API_VERSION})
