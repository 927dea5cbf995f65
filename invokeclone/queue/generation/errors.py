"""What is wrong with a request for images."""

from invokeclone.kit.errors import BadRequest, FailedDependency, NotFound
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation.limits import MAX_PIXELS, MAX_SIDE


class ModelNotFound(NotFound):
    """No main model goes by this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no main model {name!r}")


class ExtraModelNotFound(NotFound):
    """No LoRA, control model, IP-Adapter, refiner or VAE goes by this name."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there is no {what} {name!r}: install it, or take it out of the request")


class ModelCannotGenerate(FailedDependency):
    """The model's family has no recipe yet."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(f"{config.name}: {config.base} models cannot make images here yet")


class NoModelInstalled(FailedDependency):
    """No model that could make an image is installed."""

    def __init__(self) -> None:
        super().__init__("no model that makes images is installed")


class ExtraModelNotInstalled(FailedDependency):
    """A model that another one needs, or that would be the default, is not installed."""


class InvalidGeneration(BadRequest):
    """What is requested makes no sense, or the model cannot do it."""


class SizeOverLimits(InvalidGeneration):
    """An image would be larger than any may be."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"{width}x{height} is too large: at most {MAX_PIXELS} pixels, and {MAX_SIDE} along a side")
