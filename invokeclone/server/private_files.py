"""Permissions in the root folder: new image folders and all files with secrets are accessible to their owner only.

Existing folders keep their mode, because they may be shared; files inherit the permissions of their folder
(kit/files/storage.py). Folders of models, node packs and fonts are not changed.
"""

import contextlib

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import KEYS_FILE
from invokeclone.kit.files.storage import make_private_folder, restrict
from invokeclone.models.install.sources.hub import TOKEN_FILE

_log = log.get("server")


def prepare(settings: Settings) -> None:
    """Create missing private folders and restrict the files with keys. Folders that cannot be created are skipped."""
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
            _log.warning("%s was readable by other accounts of this machine; now only its owner has access", file)
