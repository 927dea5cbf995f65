"""Images of models: one small WEBP per key in the models folder. Every function blocks."""

import io
from pathlib import Path

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import UnsupportedMedia
from invokeclone.kit.files import paths
from invokeclone.kit.files.image_files import open_image
from invokeclone.kit.files.image_modes import apply_profile, upright, visible
from invokeclone.kit.files.storage import remove_file, safe_join, write_file
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import ModelImageNotFound
from invokeclone.models.records.placement import IMAGES_FOLDER

_EDGE = 256


class InvalidModelImage(UnsupportedMedia):
    """The upload cannot be read as an image."""


def _file(settings: Settings, key: str) -> Path:
    return safe_join(settings.models_path / IMAGES_FOLDER, f"{key}.webp")


def find(settings: Settings, key: str) -> Path:
    """Return the file of the model's image. Raises ModelImageNotFound."""
    path = _file(settings, key)
    if not paths.exists(path):
        raise ModelImageNotFound(f"model {key} has no image")
    return path


def save(settings: Settings, key: str, data: bytes) -> None:
    """Store an uploaded image, scaled down to at most 256 × 256 pixels. Raises InvalidModelImage."""
    try:
        with open_image(io.BytesIO(data), limit=settings.limits.image_pixels) as image:
            image.load()
            thumbnail = visible(upright(apply_profile(image)))
            thumbnail.thumbnail((_EDGE, _EDGE))
    except Exception as error:
        raise InvalidModelImage(f"the upload cannot be read as an image: {error}") from error
    buffer = io.BytesIO()
    thumbnail.save(buffer, format="webp")
    write_file(_file(settings, key), buffer.getvalue())


def remove(settings: Settings, key: str) -> None:
    """Remove the model's image, if it has one."""
    remove_file(_file(settings, key))


def move(settings: Settings, old: str, new: str) -> None:
    """Move the image of the model `old`, if it has one, to the model `new`."""
    path = _file(settings, old)
    if paths.exists(path):
        path.replace(_file(settings, new))


def with_cover_image(settings: Settings, config: ModelConfig) -> ModelConfig:
    """Return `config` with the URL of its image, which changes with the image."""
    try:
        modified_ns = _file(settings, config.key).stat().st_mtime_ns
    except FileNotFoundError:
        return config
    return config.model_copy(update={"cover_image": f"api/v2/models/i/{config.key}/image?{modified_ns:x}"})


def with_cover_images(settings: Settings, configs: list[ModelConfig]) -> list[ModelConfig]:
    """Return `configs` with the URLs of their images."""
    if not (settings.models_path / IMAGES_FOLDER).is_dir():
        return configs
    return [with_cover_image(settings, config) for config in configs]
