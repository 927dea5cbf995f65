"""Paths of stored images and videos in the local folders of a test's settings."""

from pathlib import Path

from invokeclone.images import files
from invokeclone.images.media_kinds import IMAGES, MediaKind
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage.addresses import local_storage


def full_path(settings: Settings, location: ImageLocation, kind: MediaKind = IMAGES) -> Path:
    return local_storage(settings).local_path(files.full_key(location, kind))


def thumbnail_path(settings: Settings, location: ImageLocation, kind: MediaKind = IMAGES) -> Path:
    return local_storage(settings).local_path(files.thumbnail_key(location, kind))


def paths(settings: Settings, location: ImageLocation, kind: MediaKind = IMAGES) -> list[Path]:
    return [local_storage(settings).local_path(key) for key in files.keys(location, kind)]
