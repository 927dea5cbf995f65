"""The supported preprocessors of the ControlNet extension, and its IP-Adapter modules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from invokeclone.graph.recipes import Preprocessor
from invokeclone.queue.generation import MAX_SIDE
from invokeclone.shims.image_io import resize_image

NONE = frozenset({"", "none"})
DEFAULT_RESOLUTION = 512
MIN_RESOLUTION = 64
MAX_RESOLUTION = 2048
ImageEncoder = Literal["ViT-L", "ViT-H", "ViT-G"]


@dataclass(frozen=True)
class Slider:
    """A numeric setting of a preprocessor. Clients send a negative number for the default."""

    name: str
    default: float
    minimum: float
    maximum: float

    def value(self, threshold: float) -> float:
        """Return the value to use; raises ValueError for one out of range."""
        if threshold < 0:
            return self.default
        if not self.minimum <= threshold <= self.maximum:
            message = f"{self.name} must be {self.minimum:g} to {self.maximum:g}, not {threshold:g}"
            raise ValueError(message)
        return threshold


@dataclass(frozen=True)
class Module:
    """A preprocessor: the node type that runs it, and how its sliders become the node's inputs."""

    node: str
    inputs: Callable[..., Mapping[str, Any]]
    sliders: tuple[Slider, ...] = ()
    resizes: bool = True
    """Whether the image is resized to the preprocessor's resolution first."""

    def preprocessor(self, *thresholds: float) -> Preprocessor:
        """Return the preprocessor with these slider values; raises ValueError for one out of range."""
        values = [slider.value(threshold) for slider, threshold in zip(self.sliders, thresholds, strict=False)]
        return Preprocessor(self.node, self.inputs(*values))


_INVERT = Module("invokeai_img_enhance", lambda: {"invert": True}, resizes=False)
MODULES: dict[str, Module] = {
    "canny": Module(
        "canny_edge_detection",
        lambda low, high: {"low_threshold": round(low), "high_threshold": round(high)},
        (Slider("Low Threshold", 100, 0, 255), Slider("High Threshold", 200, 0, 255)),
    ),
    "invert (from white bg & black line)": _INVERT,
    "invert": _INVERT,
    "shuffle": Module("content_shuffle", dict),
    "t2ia_color_grid": Module("color_map", dict),
    "blur_gaussian": Module("img_blur", lambda sigma: {"radius": sigma}, (Slider("Sigma", 9, 0.01, 64),)),
    "tile_resample": Module(
        "img_scale",
        lambda rate: {"scale_factor": 1 / rate, "resample_mode": "box"},
        (Slider("Down Sampling Rate", 1, 1, 8),),
        resizes=False,
    ),
}
"""Preprocessors by the extension's names."""
IP_ADAPTER_MODULES: dict[str, ImageEncoder | None] = {
    "ip-adapter-auto": None,
    "ip-adapter_clip_h": "ViT-H",
    "ip-adapter_clip_g": "ViT-G",
    "ip-adapter_clip_sd15": "ViT-H",
    "ip-adapter_clip_sdxl": "ViT-G",
    "ip-adapter_clip_sdxl_plus_vith": "ViT-H",
}
"""Image encoders of IP-Adapters by the extension's module names; None: determined by the adapter's name."""


def normalize_name(module: str | None) -> str:
    """Return a module's name as the tables spell it."""
    return (module or "").strip().casefold()


def is_ip_adapter(module: str | None) -> bool:
    """Return whether a module is an IP-Adapter's."""
    return normalize_name(module) in IP_ADAPTER_MODULES


def find_problem(module: str | None) -> str | None:
    """Return the error message for an unknown module; None for a known one."""
    name = normalize_name(module)
    if name in NONE or name in MODULES or name in IP_ADAPTER_MODULES:
        return None
    return (
        f"the preprocessor {module!r} is not supported: send the preprocessed image, or use one of "
        f"{', '.join([*MODULES, *IP_ADAPTER_MODULES])}"
    )


def resize_to_resolution(
    image: Image.Image, resolution: int, target: tuple[int, int] | None = None, *, contain: bool = False
) -> Image.Image:
    """Return the image with a shorter side of `resolution`, or scaled to cover `target` (`contain`: to fit inside).

    No side becomes longer than `MAX_SIDE`.
    """
    if target is not None:
        scales = target[0] / image.width, target[1] / image.height
        scale = min(scales) if contain else max(scales)
    else:
        scale = (resolution if resolution >= MIN_RESOLUTION else DEFAULT_RESOLUTION) / min(image.size)
    scale = min(scale, MAX_SIDE / max(image.size))
    return resize_image(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def describe_modules() -> dict[str, Any]:
    """Return the modules in the extension's form."""
    details: dict[str, Any] = {"none": {"model_free": False, "sliders": []}}
    for name, module in MODULES.items():
        sliders = [
            {"name": slider.name, "value": slider.default, "min": slider.minimum, "max": slider.maximum}
            for slider in module.sliders
        ]
        details[name] = {"model_free": False, "sliders": sliders}
    details |= {name: {"model_free": False, "sliders": []} for name in IP_ADAPTER_MODULES}
    return {"module_list": list(details), "module_detail": details}
