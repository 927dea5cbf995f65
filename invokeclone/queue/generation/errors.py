"""Errors of generation requests."""

from invokeclone.kit.errors import BadRequest, FailedDependency, NotFound
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation.limits import MAX_PIXELS, MAX_SIDE


class ModelNotFound(NotFound):
    """There is no main model with this key or name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no main model {name!r}")


class ExtraModelNotFound(NotFound):
    """There is no LoRA, control model, IP-Adapter, refiner or VAE with this key or name."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there is no {what} {name!r}: install it, or remove it from the request")


class ModelCannotGenerate(FailedDependency):
    """The model's family has no recipe."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(f"{config.name}: image generation with {config.base} models is not supported yet")


class NoModelInstalled(FailedDependency):
    """No model that can generate images is installed."""

    def __init__(self) -> None:
        super().__init__("no model that can generate images is installed")


class ExtraModelNotInstalled(FailedDependency):
    """A model that another model requires, or a default model, is not installed."""


class InvalidGeneration(BadRequest):
    """The request is invalid, or the model does not support it."""


class SizeOverLimits(InvalidGeneration):
    """The requested size is over the limits."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"{width}x{height} is too large: at most {MAX_PIXELS} pixels, and {MAX_SIDE} along a side")
