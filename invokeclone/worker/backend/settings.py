"""The settings that nodes read on a worker of another machine: without the server's folders, which are not there."""

from pathlib import Path
from typing import NoReturn

from invokeclone.kit.config.settings import Settings
from invokeclone.worker.backend.errors import NotOnThisWorker


def _raise(setting: str, advice: str) -> NoReturn:
    raise NotOnThisWorker(
        f"{setting} is on the server's machine, not on that of this worker: {advice}, or run the item on the server's machine"
    )


class SettingsOfJoinedWorker(Settings):
    """Settings whose folders of the server cannot be read, so that no node writes a file where nobody looks for it."""

    @property
    def models_path(self) -> Path:
        """Raise NotOnThisWorker."""
        _raise("the models folder", "use context.models.get_absolute_path for a model")

    @property
    def outputs_path(self) -> Path:
        """Raise NotOnThisWorker."""
        _raise("the outputs folder", "use context.images.save for an image")

    @property
    def database_path(self) -> Path:
        """Raise NotOnThisWorker."""
        _raise("the database", "use the context's interfaces")

    @property
    def fonts_path(self) -> Path:
        """Raise NotOnThisWorker."""
        _raise("the fonts folder", "use a font that the node's package has")

    @property
    def style_presets_path(self) -> Path:
        """Raise NotOnThisWorker."""
        _raise("the folder of style preset images", "use context.presets")

    @property
    def workflow_thumbnails_path(self) -> Path:
        """Raise NotOnThisWorker."""
        _raise("the folder of workflow thumbnails", "leave them out")

    @property
    def allowed_file_paths(self) -> list[Path]:
        """Raise NotOnThisWorker."""
        _raise("allowed_file_folders", "use context.config.open_text for a file")


def without_server_folders(settings: Settings) -> Settings:
    """Return `settings` for the nodes of a worker of another machine."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return SettingsOfJoinedWorker.model_construct(**values)
