"""What every service may use, handed in once: settings, database and a way to tell of events."""

from dataclasses import dataclass

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Emitter
from invokeclone.kit.sql.database import Database


@dataclass
class Resources:
    """The three things a service needs; the server has one for its life, each worker another on the same database.

    Settings are frozen; when some are changed at run time, others take their place here, so read them where they are used.
    """

    settings: Settings
    database: Database
    events: Emitter
    maintenance: bool = False
    """Whether the files of images are being moved: then what would touch images is refused, and nothing is enqueued."""
