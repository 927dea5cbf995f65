"""The routers of every dialect, for the application to include."""

from fastapi import APIRouter

ROUTERS: tuple[APIRouter, ...] = ()
