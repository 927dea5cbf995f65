"""The routers of every dialect, for the application to include."""

from fastapi import APIRouter

from invokeclone.shims.automatic1111 import api as automatic1111
from invokeclone.shims.comfyui import api as comfyui
from invokeclone.shims.gemini import api as gemini
from invokeclone.shims.openai import api as openai

ROUTERS: tuple[APIRouter, ...] = (
    automatic1111.ROUTER,
    comfyui.router,
    gemini.ROUTER,
    openai.ROUTER,
)

PICTURES = ("/v1/", "/v1beta/", "/openai/", "/sdapi/")
"""What addresses begin with whose answers hold pictures in base64."""
