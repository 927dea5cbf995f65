"""The operations that a worker requests over the link: their arguments and results as pydantic models.

The models come from the signatures of the protocols, so that a worker of the same version cannot differ. Files are not
transferred this way (see `transfers.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, create_model

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.kit.errors import BadRequest
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify import registry
from invokeclone.worker.backend.protocol import ItemBackend

MAX_NAMES = 100_000


class UnknownOperation(BadRequest):
    """The server or the worker does not know an operation: they are of different versions."""


class Holder(NamedTuple):
    """The claim for which a worker requests an operation; without an item only of what all users share."""

    worker_id: str
    item_id: int | None = None
    fence: int | None = None


@dataclass(frozen=True)
class Operation:
    """The arguments and the result of an operation."""

    name: str
    arguments: type[BaseModel]
    result: TypeAdapter[Any]
    of_item: bool = True
    """Whether it needs the rights of an item's user."""
    repeatable: bool = True
    """Whether requesting it again, after the connection was cut, has no further effect."""


Record = Annotated[
    ModelConfig,
    PlainValidator(lambda value: value if isinstance(value, ModelConfig) else registry.parse(value)),
    PlainSerializer(lambda config: config.model_dump(mode="json")),
]
_STRICT = ConfigDict(extra="forbid")


class SearchArguments(BaseModel):
    """Attributes of model records, all optional."""

    model_config = _STRICT

    name: str | None = None
    bases: list[BaseModelType] | None = Field(default=None, max_length=MAX_NAMES)
    type: ModelType | None = None
    format: ModelFormat | None = None
    path: str | None = None


class SuspendArguments(BaseModel):
    """The session of an item that calls a workflow, the called sessions as JSON, and the workflow as JSON."""

    model_config = _STRICT

    state: str
    called: list[str] = Field(min_length=1, max_length=MAX_NAMES)
    workflow: str


def _of_signature(function: Callable[..., Any], **options: bool) -> Operation:
    hints = get_type_hints(function)
    result = hints.pop("return")
    fields: dict[str, Any] = {name: (hint, ...) for name, hint in hints.items()}
    arguments = create_model(f"{function.__name__}_arguments", __config__=_STRICT, **fields)
    return Operation(function.__name__, arguments, TypeAdapter(result), **options)


def _list_operations() -> Sequence[Operation]:
    of_items = (
        ItemBackend.user, ItemBackend.owner_may_run, ItemBackend.image, ItemBackend.require_image,
        ItemBackend.image_metadata, ItemBackend.board, ItemBackend.boards, ItemBackend.add_to_board,
        ItemBackend.board_image_names, ItemBackend.style_preset, ItemBackend.system_prompt, ItemBackend.read_text,
        ItemBackend.workflow, ItemBackend.generator_images,
    )  # fmt: skip
    item_ids = create_model(
        "list_active_arguments", __config__=_STRICT, item_ids=(list[int], Field(max_length=MAX_NAMES))
    )
    key = create_model("model_arguments", __config__=_STRICT, key=(str, ...))
    return (
        *(_of_signature(function) for function in of_items),
        _of_signature(ItemBackend.create_board, repeatable=False),
        Operation("suspend", SuspendArguments, TypeAdapter(list[int]), repeatable=False),
        Operation("list_active", item_ids, TypeAdapter(set[int]), of_item=False),
        Operation("model", key, TypeAdapter(Record), of_item=False),
        Operation("search_models", SearchArguments, TypeAdapter(list[Record]), of_item=False),
    )


OPERATIONS = {operation.name: operation for operation in _list_operations()}
