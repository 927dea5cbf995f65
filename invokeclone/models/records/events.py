"""Events of registered models: changes of their records, and loads by workers."""

from typing import ClassVar

from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.events import Audience, Event
from invokeclone.models.identify.union import AnyModelConfig


class ModelLoadStartedEvent(Event):
    """A node started to load a model."""

    name: ClassVar[str] = "model_load_started"
    audience: ClassVar[Audience] = "owner"

    config: AnyModelConfig
    submodel_type: SubModelType | None = None
    user_id: str = "system"


class ModelLoadCompleteEvent(Event):
    """A model or a part of it was loaded."""

    name: ClassVar[str] = "model_load_complete"
    audience: ClassVar[Audience] = "owner"

    config: AnyModelConfig
    submodel_type: SubModelType | None = None
    user_id: str = "system"


class ModelsChangedEvent(Event):
    """Records were changed or deleted; workers must not reuse models loaded from them."""

    name: ClassVar[str] = "models_changed"
    audience: ClassVar[Audience] = "internal"

    keys: list[str]
