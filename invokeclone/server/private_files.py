"""What of the root is its owner's alone: folders of images and thumbnails when they are made, files with secrets always.

Folders that are there stay as they are, because others may share them; files take the rights of their folder (kit/files/storage.py).
Models, node packs and fonts are left alone.
"""

import contextlib

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import KEYS_FILE
from invokeclone.kit.files.storage import make_private_folder, restrict
from invokeclone.models.install.sources.hub import TOKEN_FILE

_log = log.get("server")


def prepare(settings: Settings) -> None:
    """Make the private folders that are missing and restrict the files with keys. What cannot be made is left to who writes there."""
    for folder in (
        settings.outputs_path,
        settings.style_presets_path,
        settings.workflow_thumbnails_path,
        settings.profiles_path,
    ):
        with contextlib.suppress(OSError):
            make_private_folder(folder)
    for file in (settings.root / KEYS_FILE, settings.root / TOKEN_FILE):
        if restrict(file):
            _log.warning("%s could be read by other accounts of this machine; now only its owner may", file)
