"""The routers of all compatibility APIs, and which paths belong to which API."""

from fastapi import APIRouter, Response

from invokeclone.shims.automatic1111 import api as automatic1111
from invokeclone.shims.comfyui import api as comfyui
from invokeclone.shims.compat_api import Problem, Render
from invokeclone.shims.gemini import api as gemini
from invokeclone.shims.gemini import responses as gemini_responses
from invokeclone.shims.openai import api as openai
from invokeclone.shims.openai import errors as openai_errors

ROUTERS: tuple[APIRouter, ...] = (
    automatic1111.ROUTER,
    automatic1111.CONTROLNET,
    comfyui.router,
    gemini.ROUTER,
    gemini.SHARED,
    openai.ROUTER,
)

IMAGE_PREFIXES = ("/v1/", "/v1beta/", "/v1beta1/", "/openai/", "/sdapi/")
"""Prefixes of the paths whose responses contain images in base64."""

_COMFYUI = comfyui.paths()
"""Paths and path prefixes of ComfyUI's API."""

_RENDERERS: tuple[tuple[tuple[str, ...], Render], ...] = (
    (("/v1beta/", "/v1beta1/"), gemini_responses.render),
    (("/v1/", "/openai/"), openai_errors.render),
    (("/sdapi/", "/controlnet/"), automatic1111.render),
    (_COMFYUI, comfyui.render),
)


def render_error(path: str, status: int, message: str) -> Response | None:
    """Return an error in the form of the compatibility API that a path belongs to; None if it belongs to none."""
    for patterns, render in _RENDERERS:
        if path.startswith(tuple(pattern for pattern in patterns if pattern.endswith("/"))) or path in patterns:
            return render(Problem(status, message))
    return None
