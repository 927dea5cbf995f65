"""ControlNet units, as the sd-webui-controlnet extension defines them: a part of `alwayson_scripts`, and what clients list.

Preprocessors are not supported: images come as their models expect them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from fastapi import Response
from pydantic import Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import ControlMode, ControlResize
from invokeclone.graph.taxonomy import ModelType
from invokeclone.kit.requests import Read
from invokeclone.kit.resources import Resources
from invokeclone.models import store as models
from invokeclone.queue.generation import ControlChoice, ResolvedRequest
from invokeclone.shims import pictures
from invokeclone.shims.automatic1111.schemas import Body, Generate, ImageToImage, Share
from invokeclone.shims.dialect import Refused, json_answer
from invokeclone.users.caller import Caller
from invokeclone.users.current import User

SCRIPT = "controlnet"
"""The script's name in `alwayson_scripts`, whatever its case."""
PARAM = "alwayson_scripts"
API_VERSION = 2
_NONE = frozenset({"", "none"})
_HASH = re.compile(r"\s*\[[0-9a-fA-F]+\]\s*$")
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


class Unit(Body):
    """A ControlNet and its image; the image of a unit without one is the initial image."""

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
    guidance_start: Share = 0.0
    guidance_end: Share = 1.0

    @property
    def data(self) -> str | None:
        """The image as base64, wherever the client put it."""
        image = self.image.get("image") if isinstance(self.image, dict) else self.image
        return image or self.input_image or None

    @property
    def masks(self) -> bool:
        """Whether a part of the image is masked."""
        inside = self.image.get("mask") if isinstance(self.image, dict) else None
        return bool(inside or self.mask or self.mask_image or self.effective_region_mask)


def units(request: Generate) -> list[Unit]:
    """Return the units that are enabled; raises Refused for what makes no sense, or is not supported."""
    scripts = [script for name, script in request.alwayson_scripts.items() if name.casefold() == SCRIPT]
    listed = [unit for script in scripts for unit in _args(script)]
    enabled = []
    for number, fields in enumerate(listed):
        if not isinstance(fields, dict):
            raise Refused(f"ControlNet unit {number}: must be an object", PARAM)
        try:
            unit = Unit.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            problem = error.errors()[0]
            raise Refused(f"ControlNet unit {number}: {problem['loc'][0]}: {problem['msg']}", PARAM) from error
        if unit.enabled:
            _refuse_unsupported(number, unit, request)
            enabled.append(unit)
    return enabled


def _args(script: Any) -> list[Any]:
    args = script.get("args") if isinstance(script, dict) else script
    if not isinstance(args, list | None):
        raise Refused("ControlNet: `args` must be a list of units", PARAM)
    return args or []


def _refuse_unsupported(number: int, unit: Unit, request: Generate) -> None:
    """Raise Refused for the first thing of a unit that would have to be left out."""
    only_masked = isinstance(request, ImageToImage) and request.mask and request.inpaint_full_res
    problems = (
        (
            (unit.module or "").casefold() not in _NONE,
            f"the preprocessor {unit.module!r} is not supported: send its image",
        ),
        ((unit.model or "").casefold() in _NONE, "it has no model"),
        (unit.masks, "masks are not supported"),
        (only_masked, "not together with `inpaint_full_res`: set that to false"),
        (unit.data is None and not isinstance(request, ImageToImage), "it has no image"),
        (_spelled(unit.resize_mode) not in _RESIZES, f"there is no resize_mode {unit.resize_mode!r}"),
        (_spelled(unit.control_mode) not in _MODES, f"there is no control_mode {unit.control_mode!r}"),
    )
    for applies, reason in problems:
        if applies:
            raise Refused(f"ControlNet unit {number}: {reason}", PARAM)


def _spelled(mode: int | str) -> str:
    return str(mode).strip().casefold()


def choices(request: Generate) -> list[ControlChoice]:
    """Return the units as choices whose images are still missing; raises Refused."""
    return [
        ControlChoice(
            model=_HASH.sub("", unit.model or ""),
            image="",
            weight=unit.weight,
            begin=unit.guidance_start,
            end=unit.guidance_end,
            mode=_MODES[_spelled(unit.control_mode)],
            resize=_RESIZES[_spelled(unit.resize_mode)],
        )
        for unit in units(request)
    ]


async def with_images(
    resources: Resources, user: User, resolved: ResolvedRequest, request: Generate
) -> ResolvedRequest:
    """Store the units' images and return the request with their names. Raises Refused for what is no image."""
    initial = request.init_images[0] if isinstance(request, ImageToImage) and request.init_images else None
    controls = []
    for control, unit in zip(resolved.settings.controls, units(request), strict=True):
        controls.append(replace(control, image=await _stored(resources, user, unit.data or initial or "")))
    return replace(resolved, settings=replace(resolved.settings, controls=controls))


async def _stored(resources: Resources, user: User, text: str) -> str:
    data = await pictures.in_thread(lambda: pictures.unpacked(text, PARAM))
    return await pictures.keep(resources, await pictures.opened(data, PARAM), user)


def description(resolved: ResolvedRequest) -> dict[str, str]:
    """Return what an image's text says of its units."""
    return {
        f"ControlNet {number}": (
            f"Model: {control.model['name']}, Weight: {control.weight}, Guidance Start: {control.begin}, "
            f"Guidance End: {control.end}, Resize Mode: {_name(_RESIZES, control.resize)}, "
            f"Control Mode: {_name(_MODES, control.mode)}"
        )
        for number, control in enumerate(resolved.settings.controls)
    }


def _name(names: Any, value: str) -> str:
    return next(str(name) for name, known in names.items() if known == value and not name.isdigit()).title()


async def model_names(connection: AsyncConnection) -> Sequence[str]:
    """Return the names of the ControlNets and T2I-Adapters."""
    kinds = (ModelType.ControlNet, ModelType.T2IAdapter)
    return [config.name for kind in kinds for config in await models.search(connection, type=kind)]


async def list_models(_caller: Caller, connection: Read) -> Response:
    """List the ControlNets and T2I-Adapters."""
    return json_answer({"model_list": await model_names(connection)})


async def list_modules(_caller: Caller) -> Response:
    """List the preprocessors: there are none."""
    return json_answer({"module_list": ["none"], "module_detail": {}})


async def get_version(_caller: Caller) -> Response:
    """Tell the version of the extension's API."""
    return json_answer({"version": API_VERSION})
