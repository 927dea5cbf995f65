"""The routers of every dialect, for the application to include, and which addresses are whose."""

from fastapi import APIRouter, Response

from invokeclone.shims.automatic1111 import api as automatic1111
from invokeclone.shims.comfyui import api as comfyui
from invokeclone.shims.compat_api import Problem, Render
from invokeclone.shims.gemini import api as gemini
from invokeclone.shims.openai import api as openai
from invokeclone.shims.openai import errors as openai_errors

ROUTERS: tuple[APIRouter, ...] = (
    automatic1111.ROUTER,
    automatic1111.CONTROLNET,
    comfyui.router,
    gemini.ROUTER,
    openai.ROUTER,
)

IMAGE_PREFIXES = ("/v1/", "/v1beta/", "/openai/", "/sdapi/")
"""What addresses begin with whose answers hold pictures in base64."""

_COMFYUI = tuple(dict.fromkeys(f"{prefix}{path}" for prefix in comfyui.PREFIXES for path in comfyui.paths()))
"""What ComfyUI's addresses begin with."""

_RENDERERS: tuple[tuple[tuple[str, ...], Render], ...] = (
    (("/v1beta/",), gemini.render),
    (("/v1/", "/openai/"), openai_errors.render),
    (("/sdapi/", "/controlnet/"), automatic1111.render),
    (_COMFYUI, comfyui.render),
)


def render_error(path: str, status: int, message: str) -> Response | None:
    """Return a refusal in the words of the dialect that an address belongs to; None: it belongs to none."""
    for patterns, render in _RENDERERS:
        if path.startswith(tuple(pattern for pattern in patterns if pattern.endswith("/"))) or path in patterns:
            return render(Problem(status, message))
    return None
