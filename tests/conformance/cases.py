"""Cases of the conformance suite: calls of store functions whose results must be the same on both databases."""

import dataclasses
import enum
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, get_type_hints

from pydantic import BaseModel
from sqlalchemy import insert
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.metrics import MetricValues
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.prepared_statements import Source
from invokeclone.kit.sql.transactions import Changes

AT = "2026-01-02 03:04:05.678"
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Case = Callable[["Calls"], Awaitable[None]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Register a case by its module and name."""
    CASES[f"{function.__module__.split('.')[-1].removesuffix('_cases')}.{function.__name__}"] = function
    return function


class Silent:
    """An emitter without listeners."""

    def emit(self, event: Any) -> None:
        pass


class Calls:
    """Calls store functions on a database and records what they return or raise."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.database = database
        self.resources = Resources(settings, database, Silent())
        self.transcript: list[tuple[str, Any]] = []
        self._names: dict[str, str] = {}

    async def __call__(self, function: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
        """Call `function` on what its parameter for the database takes, record the result, and return it."""
        try:
            result = await self._run(function, arguments, options)
        except InvokeCloneError as error:
            self.record(function, [type(error).__name__, str(error)])
            return None
        except (IntegrityError, sqlite3.IntegrityError):
            self.record(function, "IntegrityError")
            return None
        self.record(function, result)
        return result

    async def _run(self, function: Callable[..., Any], arguments: Any, options: Any) -> Any:
        wanted = {
            hint for hint in get_type_hints(function).values() if hint in (Changes, Source, AsyncConnection, Database)
        }
        if wanted == {Changes}:
            return await self.database.transact(lambda changes: function(changes, *arguments, **options))
        if wanted == {Source}:
            alone = await function(self.database, *arguments, **options)
            async with self.database.read() as connection:
                assert normalized(await function(connection, *arguments, **options)) == normalized(alone)
            return alone
        if wanted == {AsyncConnection}:
            async with self.database.write() as connection:
                return await function(connection, *arguments, **options)
        return await function(self.database if wanted else self.resources, *arguments, **options)

    def record(self, function: Callable[..., Any], result: Any) -> None:
        """Record a result as the function's."""
        self.transcript.append((name_of(function), self._with_ids(normalized(result))))

    def _with_ids(self, value: Any) -> Any:
        """Replace generated ids by their number."""
        text = json.dumps(value)
        return json.loads(_UUID.sub(lambda match: self._names.setdefault(match[0], f"id {len(self._names)}"), text))

    async def insert(self, table: Any, *rows: Mapping[str, Any]) -> None:
        """Insert rows; times and ids that columns require have a default."""
        required = {name: AT for name in ("created_at", "updated_at") if name in table.c}
        async with self.database.write() as connection:
            for row in rows:
                await connection.execute(insert(table).values(**{**required, **row}))


def name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def normalized(value: Any) -> Any:
    """Return a result as JSON data in which texts of JSON are parsed and times are equal."""
    if isinstance(value, BaseModel):
        return normalized(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: normalized(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, MetricValues):
        return {name: repr(sorted(series.items())) for name, series in value._series.items() if "age" not in name}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (bytes, memoryview)):
        return normalized(bytes(value).decode())
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, datetime):
        return "a time"
    if isinstance(value, Mapping):
        return [[normalized(key), normalized(item)] for key, item in value.items() if key != "timestamp"]
    if isinstance(value, (set, frozenset)):
        return sorted(normalized(item) for item in value)
    if isinstance(value, (list, tuple, Row)):
        return [normalized(item) for item in value]
    assert value is None or isinstance(value, (bool, int, float)), type(value)
    return [type(value).__name__, value]


def _text(value: str) -> Any:
    if value[:1] in ("{", "["):
        try:
            return {"json": _timeless(json.loads(value))}
        except ValueError:
            pass
    return _TIME.sub("a time", value)


def _timeless(value: Any) -> Any:
    return json.loads(_TIME.sub("a time", json.dumps(value)))
