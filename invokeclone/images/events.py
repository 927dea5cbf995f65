"""What images tell the rest of the application; nothing here goes out to clients, who read it from the answers."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class ImagesDeletedEvent(Event):
    """Images are gone: results that name them must not be used again."""

    name: ClassVar[str] = "images_deleted"
    audience: ClassVar[Audience] = "internal"

    image_names: list[str]
