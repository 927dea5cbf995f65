"""The routers of every dialect, for the application to include."""

from fastapi import APIRouter

from invokeclone.shims.openai import api as openai

ROUTERS: tuple[APIRouter, ...] = (openai.ROUTER,)
