"""Settings, database and event emitter in one object for services."""

from dataclasses import dataclass
from functools import cached_property

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Emitter
from invokeclone.kit.sql.database import Database
from invokeclone.kit.storage.addresses import open_storage
from invokeclone.kit.storage.protocol import ObjectStorage


@dataclass
class Resources:
    """The resources of services; the server has one instance, each worker another on the same database.

    Settings are frozen; a change at run time replaces `settings`, so read them where they are used.
    """

    settings: Settings
    database: Database
    events: Emitter
    maintenance: bool = False
    """Whether image files are being moved between subfolders; operations on images and enqueueing are refused
    meanwhile."""

    @cached_property
    def storage(self) -> ObjectStorage:
        """Images, videos and thumbnails; raises StorageNotUsable at the first use."""
        return open_storage(self.settings)
