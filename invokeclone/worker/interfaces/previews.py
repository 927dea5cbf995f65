"""Previews of latents: by a tiny autoencoder if the setting asks for it and one is installed, else by a linear map."""

from typing import TYPE_CHECKING, Any

import orjson

from invokeclone.graph.context import CanceledException
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.kit import log
from invokeclone.models.configs.model_config import ModelConfig
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
        self._session = session
        self._tools = session.tools
        self._autoencoders: dict[BaseModelType, ModelConfig | None] = {}

    def render(self, latents: Any, base: BaseModelType) -> tuple["Image", int]:
        """Return a small image of latents (batch, channels, height, width), and its scale factor to full size."""
        if self._tools.resources.settings.tiny_autoencoder_previews and (config := self._autoencoder_of(base)):
            try:
                path = self._tools.wait(self._session.model_files.path(config, _no_report))
                return self._tools.engine.decode_preview(config, path, latents)
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
            searching = self._tools.backend.search_models(bases=bases, type=ModelType.VAE, format=ModelFormat.Diffusers)
            records = self._tools.wait(searching)
            self._autoencoders[base] = next((config for config in records if self._is_tiny(config)), None)
        return self._autoencoders[base]

    def _is_tiny(self, config: ModelConfig) -> bool:
        data = self._tools.wait(self._session.model_files.read_file(config, "config.json"))
        try:
            content = orjson.loads(data or b"")
        except ValueError:
            return False
        return isinstance(content, dict) and content.get("_class_name") == _CLASS


def _no_report(_message: str, _share: float | None) -> None:
    """Report nothing."""
