"""SQL for model records: get, search, add, update, delete.

The column `config` contains the whole record; rows whose record cannot be parsed are skipped and logged.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import ColumnElement, func, insert, select
from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.kit import log
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, json_list, members, parameter
from invokeclone.kit.sql.transactions import Rows
from invokeclone.kit.times import now
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import DuplicateModelException, UnknownModelException
from invokeclone.models.identify import registry
from invokeclone.models.records.schemas import ModelRecordOrderBy, SQLiteDirection
from invokeclone.models.records.starters import InstalledModel
from invokeclone.tables import models

_log = log.get("models")

_ORDERS: dict[ModelRecordOrderBy, tuple[ColumnElement[Any], ...]] = {
    ModelRecordOrderBy.Default: (models.c.type, models.c.base, func.lower(models.c.name), models.c.format),
    ModelRecordOrderBy.Type: (models.c.type,),
    ModelRecordOrderBy.Base: (models.c.base,),
    ModelRecordOrderBy.Name: (func.lower(models.c.name),),
    ModelRecordOrderBy.Format: (models.c.format,),
    ModelRecordOrderBy.Size: (models.c.file_size,),
    ModelRecordOrderBy.DateAdded: (models.c.created_at,),
    ModelRecordOrderBy.DateModified: (models.c.updated_at,),
    ModelRecordOrderBy.Path: (models.c.path,),
}


async def get(source: Source, key: str) -> ModelConfig:
    """Return the record `key`. Raises UnknownModelException."""
    records = _records(await _ONE.rows(source, key=key))
    if not records:
        raise UnknownModelException(f"no model with key {key}")
    return records[0].config


_ONE = PreparedStatement(select(models.c.key, models.c.config).where(models.c.key == parameter("key")))


async def has_path(connection: AsyncConnection, key: str, path: str) -> bool:
    """Return whether the record `key` exists with this path."""
    return await connection.scalar(select(models.c.path).where(models.c.key == key)) == path


async def exists(connection: AsyncConnection, key: str) -> bool:
    """Return whether the record `key` exists."""
    return await connection.scalar(select(models.c.key).where(models.c.key == key)) is not None


async def search(source: Source, **attributes: Any) -> list[ModelConfig]:
    """Return the records that match every given attribute (see `search_records`)."""
    return [record.config for record in await search_records(source, **attributes)]


async def search_records(
    source: Source,
    *,
    name: str | None = None,
    bases: Iterable[BaseModelType] | None = None,
    type: ModelType | None = None,  # noqa: A002  (name in the API)
    format: ModelFormat | None = None,  # noqa: A002  (name in the API)
    path: str | None = None,
    hash: str | None = None,  # noqa: A002  (name in the API)
    order_by: ModelRecordOrderBy = ModelRecordOrderBy.Default,
    direction: SQLiteDirection = SQLiteDirection.Ascending,
) -> "list[ModelRow]":
    """Return the records that match every given attribute. `path` is as recorded; no `bases` means every base."""
    filters = {"name": name, "type": type, "format": format, "path": path, "hash": hash}
    values: dict[str, Any] = {column: value for column, value in filters.items() if value is not None}
    if base_list := list(bases or ()):
        values["bases"] = json_list(base_list)
    return _records(await _search(frozenset(values), order_by, direction).rows(source, **values))


@lru_cache(maxsize=128)
def _search(attributes: frozenset[str], order_by: ModelRecordOrderBy, direction: SQLiteDirection) -> PreparedStatement:
    query = select(models.c.key, models.c.config)
    for name in attributes - {"bases"}:
        query = query.where(models.c[name] == parameter(name))
    if "bases" in attributes:
        query = query.where(models.c.base.in_(members("bases")))
    columns = (*_ORDERS[order_by], models.c.key)
    down = direction == SQLiteDirection.Descending
    return PreparedStatement(query.order_by(*(column.desc() if down else column.asc() for column in columns)))


async def find_first(source: Source, **attributes: Any) -> ModelConfig:
    """Return the first record that matches the attributes (see `search_records`). Raises UnknownModelException."""
    configs = await search(source, **attributes)
    if not configs:
        raise UnknownModelException(
            "no model with " + ", ".join(f"{name} {value}" for name, value in attributes.items())
        )
    return configs[0]


async def paths(connection: AsyncConnection) -> dict[str, str]:
    """Return the recorded path of every row by key, including rows whose record cannot be parsed."""
    return {row.key: row.path for row in await connection.execute(select(models.c.key, models.c.path))}


class InstalledFiles(NamedTuple):
    """Recorded path, source, hash and size of a model's files."""

    key: str
    path: str
    source: str
    hash: str
    file_size: int


async def list_installed_files(connection: AsyncConnection) -> list[InstalledFiles]:
    """Return the files of every row, including rows whose record cannot be parsed."""
    rows = await connection.execute(
        select(models.c.key, models.c.path, models.c.source, models.c.hash, models.c.file_size)
    )
    return [InstalledFiles(*row) for row in rows]


async def creation_times(connection: AsyncConnection) -> dict[str, datetime]:
    """Return the creation time of each record, by key."""
    rows = await connection.execute(select(models.c.key, models.c.created_at))
    return {row.key: datetime.fromisoformat(f"{row.created_at}+00:00") for row in rows}


async def keys_by_source(connection: AsyncConnection, prefix: str) -> list[str]:
    """Return the keys of the rows whose source starts with `prefix`, including rows whose record cannot be parsed."""
    has_prefix = func.substr(models.c.source, 1, len(prefix)) == prefix
    return list(await connection.scalars(select(models.c.key).where(has_prefix).order_by(models.c.key)))


async def sources(connection: AsyncConnection) -> set[str]:
    """Return the sources of all records."""
    return set((await connection.scalars(select(models.c.source))).all())


async def list_installed(connection: AsyncConnection) -> list[InstalledModel]:
    """Return source, name, base and type of every record."""
    rows = await connection.execute(select(models.c.source, models.c.name, models.c.base, models.c.type))
    return [InstalledModel(*row) for row in rows]


async def add(connection: AsyncConnection, config: ModelConfig) -> None:
    """Add a record. Raises DuplicateModelException if its key or path exists."""
    time = now()
    row = {"key": config.key, "created_at": time, "updated_at": time, **_columns(config)}
    try:
        await connection.execute(insert(models).values(row))
    except IntegrityError as error:
        raise DuplicateModelException(
            f"a model with path {config.path} or key {config.key} is registered already"
        ) from error


async def update(connection: AsyncConnection, config: ModelConfig) -> None:
    """Replace the record with the key of `config`. Raises UnknownModelException, DuplicateModelException."""
    values = {"updated_at": now(), **_columns(config)}
    try:
        result = await connection.execute(sql_update(models).where(models.c.key == config.key).values(values))
    except IntegrityError as error:
        raise DuplicateModelException(f"another model is registered with path {config.path}") from error
    if result.rowcount == 0:
        raise UnknownModelException(f"no model with key {config.key}")


async def delete(connection: AsyncConnection, key: str) -> str:
    """Delete the record `key` and return its recorded path. Raises UnknownModelException."""
    path = await connection.scalar(sql_delete(models).where(models.c.key == key).returning(models.c.path))
    if path is None:
        raise UnknownModelException(f"no model with key {key}")
    return str(path)


def _columns(config: ModelConfig) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in ("hash", "base", "type", "format", "name", "path", "file_size")}
    record = config.model_dump_json(exclude={"cover_image"})
    if not config.path:  # a model without files; no two rows have the same path
        values["path"] = f"external:{config.key}"
    return {**values, "description": config.description, "source": config.source, "config": record}


class ModelRow(NamedTuple):
    """A record and its JSON for responses."""

    config: ModelConfig
    json: bytes


def _records(rows: Rows) -> list[ModelRow]:
    records = []
    for key, text in rows:
        try:
            records.append(_parse(text))
        except (ValidationError, ValueError) as error:
            _log.warning("the record of model %s cannot be read and is skipped: %s", key, error)
    return records


@lru_cache(maxsize=4096)
def _parse(text: str) -> ModelRow:
    """Parse a record; cached because every list parses all records, and safe because records are frozen."""
    config = registry.parse(json.loads(text))
    return ModelRow(config, config.model_dump_json().encode())
