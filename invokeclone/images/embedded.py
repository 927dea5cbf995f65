"""Which embedded texts are worth keeping: metadata, workflow and graph each have a least form; it knows no files."""

from typing import Literal

import orjson
from pydantic import BaseModel, JsonValue, ValidationError

from invokeclone.images.png import GRAPH, METADATA, WORKFLOW


class _Exposed(BaseModel):
    nodeId: str  # noqa: N815  (the wire's word)
    fieldName: str  # noqa: N815


class _Meta(BaseModel):
    version: str
    category: Literal["user", "default"]


class _Workflow(BaseModel):
    """The form of a workflow that is not in the library (it has no id)."""

    name: str
    author: str
    description: str
    version: str
    contact: str
    tags: str
    notes: str
    exposedFields: list[_Exposed]  # noqa: N815
    meta: _Meta
    nodes: list[dict[str, JsonValue]]
    edges: list[dict[str, JsonValue]]
    form: dict[str, JsonValue] | None = None


def metadata(text: str | None) -> str | None:
    """Return `text` if it is a JSON object."""
    return text if text is not None and isinstance(_parsed(text), dict) else None


def workflow(text: str | None) -> str | None:
    """Return `text` if it is a workflow."""
    if text is None:
        return None
    try:
        _Workflow.model_validate(_parsed(text))
    except ValidationError:
        return None
    return text


def graph(text: str | None) -> str | None:
    """Return `text` if it is an object with nodes and edges."""
    value = None if text is None else _parsed(text)
    if isinstance(value, dict) and isinstance(value.get("nodes"), dict) and isinstance(value.get("edges"), list):
        return text
    return None


def _parsed(text: str) -> object:
    """Return what `text` says, None if it is not JSON (NaN and broken Unicode are not)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def kept(found: dict[str, str], given_metadata: str | None = None) -> dict[str, str]:
    """Return those texts of a picture that have the right form; `given_metadata` stands in for the picture's own."""
    checked = {
        METADATA: metadata(found.get(METADATA) if given_metadata is None else given_metadata),
        WORKFLOW: workflow(found.get(WORKFLOW)),
        GRAPH: graph(found.get(GRAPH)),
    }
    return {key: text for key, text in checked.items() if text is not None}


def texts(metadata_json: str | None, workflow_json: str | None, graph_json: str | None) -> dict[str, str]:
    """Return the texts to embed, without those that are None."""
    given = {METADATA: metadata_json, WORKFLOW: workflow_json, GRAPH: graph_json}
    return {key: text for key, text in given.items() if text is not None}
