"""Validation of texts embedded in images: metadata, workflow and graph."""

import json
from typing import Literal

from pydantic import BaseModel, JsonValue, ValidationError

from invokeclone.images.encoding.png import GRAPH, METADATA, WORKFLOW
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import TooLarge
from invokeclone.kit.json_text import NotStorable, decode_text


class _ExposedField(BaseModel):
    nodeId: str  # noqa: N815  (field name of the API)
    fieldName: str  # noqa: N815


class _Meta(BaseModel):
    version: str
    category: Literal["user", "default"]


class _Workflow(BaseModel):
    """The required fields of a workflow outside the library (without an id)."""

    name: str
    author: str
    description: str
    version: str
    contact: str
    tags: str
    notes: str
    exposedFields: list[_ExposedField]  # noqa: N815
    meta: _Meta
    nodes: list[dict[str, JsonValue]]
    edges: list[dict[str, JsonValue]]
    form: dict[str, JsonValue] | None = None


def metadata(text: str | None, limits: Limits) -> str | None:
    """Return `text` if it is a JSON object."""
    return text if text is not None and isinstance(_parse(text, limits), dict) else None


def parse_form_metadata(text: str, limits: Limits) -> str | None:
    """Return the metadata of a form if it is a JSON object.

    Raises NotStorable and TooLarge, like all JSON from clients.
    """
    try:
        return text if isinstance(decode_text(text, limits), dict) else None
    except json.JSONDecodeError:
        return None


def workflow(text: str | None, limits: Limits) -> str | None:
    """Return `text` if it is a valid workflow."""
    if text is None:
        return None
    try:
        _Workflow.model_validate(_parse(text, limits))
    except ValidationError:
        return None
    return text


def graph(text: str | None, limits: Limits) -> str | None:
    """Return `text` if it is a JSON object with nodes and edges."""
    value = None if text is None else _parse(text, limits)
    if isinstance(value, dict) and isinstance(value.get("nodes"), dict) and isinstance(value.get("edges"), list):
        return text
    return None


def _parse(text: str, limits: Limits) -> object:
    """Return the value of `text`, None if it is invalid JSON or over the limits."""
    try:
        return decode_text(text, limits)
    except (json.JSONDecodeError, NotStorable, TooLarge):
        return None


def valid_texts(embedded_texts: dict[str, str], form_metadata: str | None, limits: Limits) -> dict[str, str]:
    """Return the valid texts of an image; `form_metadata` replaces the embedded metadata.

    Raises NotStorable and TooLarge for `form_metadata`.
    """
    checked = {
        METADATA: metadata(embedded_texts.get(METADATA), limits)
        if form_metadata is None
        else parse_form_metadata(form_metadata, limits),
        WORKFLOW: workflow(embedded_texts.get(WORKFLOW), limits),
        GRAPH: graph(embedded_texts.get(GRAPH), limits),
    }
    return {key: text for key, text in checked.items() if text is not None}


def texts(metadata_json: str | None, workflow_json: str | None, graph_json: str | None) -> dict[str, str]:
    """Return the texts to embed, without those that are None."""
    values = {METADATA: metadata_json, WORKFLOW: workflow_json, GRAPH: graph_json}
    return {key: text for key, text in values.items() if text is not None}
