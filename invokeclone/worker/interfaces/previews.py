"""Previews of latents: by a tiny autoencoder if the setting asks for it and one is installed, else by a linear map."""

from typing import TYPE_CHECKING, Any

import orjson

from invokeclone.graph.context import CanceledException
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.kit import log
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store
from invokeclone.worker.interfaces.tools import Session

if TYPE_CHECKING:
    from PIL.Image import Image

_log = log.get("worker.previews")
_CLASS = "AutoencoderTiny"
_SAME_LATENTS = {BaseModelType.StableDiffusion2: BaseModelType.StableDiffusion1}
"""Bases whose latents are those of another."""


class Previews:
    """Renders the previews of one node."""

    def __init__(self, session: Session) -> None:
        """Render for a node of `session`."""
        self._tools = session.tools
        self._models = session.tools.resources.settings.models_path
        self._autoencoders: dict[BaseModelType, ModelConfig | None] = {}

    def render(self, latents: Any, base: BaseModelType) -> tuple["Image", int]:
        """Return a small image of latents (batch, channels, height, width), and its scale factor to full size."""
        if self._tools.resources.settings.tiny_autoencoder_previews and (config := self._autoencoder_of(base)):
            try:
                return self._tools.engine.decode_preview(config, self._models / config.path, latents)
            except CanceledException:
                raise
            except Exception as error:  # noqa: BLE001  (a preview must not fail the run)
                _log.warning("no previews by %s in this run: %s", config.name, error)
                self._autoencoders[base] = None
        return self._tools.engine.preview(latents, base)

    def _autoencoder_of(self, base: BaseModelType) -> ModelConfig | None:
        """Return the record of an installed tiny autoencoder for the base's latents."""
        if base not in self._autoencoders:
            bases = {base, _SAME_LATENTS.get(base, base)}
            records = self._tools.wait(self._search(bases))
            self._autoencoders[base] = next((config for config in records if self._is_tiny(config)), None)
        return self._autoencoders[base]

    async def _search(self, bases: set[BaseModelType]) -> list[ModelConfig]:
        async with self._tools.resources.database.read() as connection:
            return await store.search(connection, bases=bases, type=ModelType.VAE, format=ModelFormat.Diffusers)

    def _is_tiny(self, config: ModelConfig) -> bool:
        try:
            content = orjson.loads((self._models / config.path / "config.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and content.get("_class_name") == _CLASS
