"""SQL functions that SQLite and PostgreSQL name differently: what differs by database is in this module.

The classes register themselves with SQLAlchemy, so that `func.json_object(…)` is the class below. Each has SQLite's name
and meaning. JSON is text in both databases: PostgreSQL's `json` type keeps a text as it is.
"""

from typing import Any

from sqlalchemy import ColumnElement, Float, Integer, LargeBinary, Text
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement, GenericFunction
from sqlalchemy.types import NullType

from invokeclone.kit.sql.local_zone import local_zone

POSTGRES = "postgresql"


class json(GenericFunction[Any]):  # noqa: N801  (an SQL name)
    """Mark a text as JSON for the functions below; PostgreSQL raises an error for invalid JSON."""

    name = "json"
    inherit_cache = True


class json_object(GenericFunction[str]):  # noqa: N801
    """Return a JSON object of alternating keys and values."""

    name = "json_object"
    type = Text()
    inherit_cache = True


class json_array(GenericFunction[str]):  # noqa: N801
    """Return a JSON array of values."""

    name = "json_array"
    type = Text()
    inherit_cache = True


class json_group_array(GenericFunction[str]):  # noqa: N801
    """Aggregate values to a JSON array, an empty one without rows."""

    name = "json_group_array"
    type = Text()
    inherit_cache = True


class json_without_nulls(GenericFunction[str]):  # noqa: N801
    """Return a JSON object without the members that are null."""

    name = "json_without_nulls"
    type = Text()
    inherit_cache = True


class json_extract(GenericFunction[Any]):  # noqa: N801
    """Return a member of a JSON object, `$.name`: a text, number or null as such, others as JSON text."""

    name = "json_extract"
    inherit_cache = True


class json_each(GenericFunction[Any]):  # noqa: N801
    """Return a row for each text of a JSON array: `key` is its index, `value` the text."""

    name = "json_each"
    inherit_cache = True


class json_each_integer(GenericFunction[Any]):  # noqa: N801
    """Return a row for each integer of a JSON array: `key` is its index, `value` the integer."""

    name = "json_each_integer"
    inherit_cache = True


class utf8(GenericFunction[bytes]):  # noqa: N801
    """Return a text as bytes."""

    name = "utf8"
    type = LargeBinary()
    inherit_cache = True


class instr(GenericFunction[int]):  # noqa: N801
    """Return the position of the second text in the first, from 1; 0 if it is not contained."""

    name = "instr"
    type = Integer()
    inherit_cache = True


class casefold(GenericFunction[str]):  # noqa: N801
    """Return a text folded for comparison (kit/sql/case_folding.py); in PostgreSQL a function of revision 0018."""

    name = "casefold"
    type = Text()
    inherit_cache = True


class folded_like(GenericFunction[int]):  # noqa: N801
    """Return 1 if a text, or JSON with escaped letters, matches a LIKE pattern in any case and script, else 0."""

    name = "folded_like"
    type = Integer()
    inherit_cache = True


class julianday(GenericFunction[float]):  # noqa: N801
    """Return a time as a number of days."""

    name = "julianday"
    type = Float()
    inherit_cache = True


class local_date(GenericFunction[str]):  # noqa: N801
    """Return the date of a time as `YYYY/MM/DD` in the local time zone of this process."""

    name = "local_date"
    type = Text()
    inherit_cache = True


class like_ignoring_case(GenericFunction[bool]):  # noqa: N801
    """Match a LIKE pattern without an escape character, ignoring the case of ASCII letters."""

    name = "like_ignoring_case"
    inherit_cache = True


class trigrams(GenericFunction[Any]):  # noqa: N801
    """Return the sequences of three letters of a folded text, in PostgreSQL only (a function of revision 0018)."""

    name = "invokeclone_trigrams"
    inherit_cache = True


class ByDatabase(FunctionElement[Any]):
    """An expression that has another form for each database; prefer a function of this module."""

    inherit_cache = True

    def __init__(self, *, sqlite: ColumnElement[Any], postgresql: ColumnElement[Any]) -> None:
        super().__init__(sqlite, postgresql)
        self.type = NullType()  # a condition of type Boolean would be compared with 1 in SQLite


Compiler = Any


@compiles(OnConflictDoNothing, POSTGRES)
def _on_conflict_do_nothing(element: Any, compiler: Compiler, **options: Any) -> str:
    """Write SQLite's clause, which has the same syntax; PostgreSQL's could name a constraint too."""
    element.constraint_target = None
    return str(compiler.visit_on_conflict_do_nothing(element, **options))


@compiles(OnConflictDoUpdate, POSTGRES)
def _on_conflict_do_update(element: Any, compiler: Compiler, **options: Any) -> str:
    element.constraint_target = None
    return str(compiler.visit_on_conflict_do_update(element, **options))


@compiles(ByDatabase)
def _first(element: ByDatabase, compiler: Compiler, **options: Any) -> str:
    return str(compiler.process(element.clauses.clauses[0], **options))


@compiles(ByDatabase, POSTGRES)
def _second(element: ByDatabase, compiler: Compiler, **options: Any) -> str:
    return str(compiler.process(element.clauses.clauses[1], **options))


def _arguments(element: FunctionElement[Any], compiler: Compiler, options: dict[str, Any]) -> list[str]:
    return [str(compiler.process(clause, **options)) for clause in element.clauses]


@compiles(json_without_nulls, "sqlite")
def _json_without_nulls(element: json_without_nulls, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"json_patch('{{}}', {value})"


@compiles(json_each_integer, "sqlite")
def _json_each_integer(element: json_each_integer, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"json_each({value})"


@compiles(utf8, "sqlite")
def _utf8(element: utf8, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"CAST({value} AS BLOB)"


@compiles(local_date, "sqlite")
def _local_date(element: local_date, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"strftime('%Y/%m/%d', {value}, 'localtime')"


@compiles(like_ignoring_case, "sqlite")
def _like(element: like_ignoring_case, compiler: Compiler, **options: Any) -> str:
    value, pattern = _arguments(element, compiler, options)
    return f"{value} LIKE {pattern}"


def _values(element: FunctionElement[Any], compiler: Compiler, options: dict[str, Any]) -> list[str]:
    """Return the arguments of a function that makes JSON; JSON json_makers by another is inserted as such, as SQLite does."""
    json_makers = (json_object, json_array, json_group_array, json_without_nulls)
    texts = zip(element.clauses, _arguments(element, compiler, options), strict=True)
    return [f"CAST({text} AS json)" if isinstance(clause, json_makers) else text for clause, text in texts]


@compiles(json, POSTGRES)
def _json_pg(element: json, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"CAST({value} AS json)"


@compiles(json_object, POSTGRES)
def _json_object_pg(element: json_object, compiler: Compiler, **options: Any) -> str:
    """Write an object; PostgreSQL limits the arguments of a call to 100."""
    arguments = _values(element, compiler, options)
    return f"CAST(json_build_object({', '.join(arguments)}) AS text)"


@compiles(json_array, POSTGRES)
def _json_array_pg(element: json_array, compiler: Compiler, **options: Any) -> str:
    return f"CAST(json_build_array({', '.join(_values(element, compiler, options))}) AS text)"


@compiles(json_group_array, POSTGRES)
def _json_group_array_pg(element: json_group_array, compiler: Compiler, **options: Any) -> str:
    (value,) = _values(element, compiler, options)
    return f"CAST(coalesce(json_agg({value}), '[]') AS text)"


@compiles(json_without_nulls, POSTGRES)
def _json_without_nulls_pg(element: json_without_nulls, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return (
        "(SELECT CAST(coalesce(json_object_agg(members.key, members.value), '{}') AS text)"  # noqa: S608
        f" FROM json_each(CAST({value} AS json)) AS members WHERE json_typeof(members.value) <> 'null')"
    )


@compiles(json_extract, POSTGRES)
def _json_extract_pg(element: json_extract, compiler: Compiler, **options: Any) -> str:
    value, path = element.clauses
    key = getattr(path, "value", None)  # paths are literals in the code
    if not isinstance(key, str) or not key.startswith("$."):
        raise ValueError(f"not a path to a member: {key!r}")
    return f"(CAST({compiler.process(value, **options)} AS json) ->> '{key[2:]}')"


def _elements_pg(element: FunctionElement[Any], compiler: Compiler, options: dict[str, Any], cast: str) -> str:
    """Select the elements of an array, for which the planner expects 10 rows: 100 without `unnest`, too many for an index."""
    (value,) = _arguments(element, compiler, options)
    return (
        f"(SELECT ordinality - 1 AS key, CAST(value AS {cast}) AS value"  # noqa: S608
        f" FROM unnest(ARRAY(SELECT json_array_elements_text(CAST({value} AS json)))) WITH ORDINALITY"
        " AS elements(value, ordinality))"
    )


@compiles(json_each, POSTGRES)
def _json_each_pg(element: json_each, compiler: Compiler, **options: Any) -> str:
    return _elements_pg(element, compiler, options, "text")


@compiles(json_each_integer, POSTGRES)
def _json_each_integer_pg(element: json_each_integer, compiler: Compiler, **options: Any) -> str:
    return _elements_pg(element, compiler, options, "bigint")


@compiles(utf8, POSTGRES)
def _utf8_pg(element: utf8, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"convert_to({value}, 'UTF8')"


@compiles(instr, POSTGRES)
def _instr_pg(element: instr, compiler: Compiler, **options: Any) -> str:
    return f"strpos({', '.join(_arguments(element, compiler, options))})"


@compiles(casefold, POSTGRES)
def _casefold_pg(element: casefold, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"invokeclone_casefold({value})"


@compiles(folded_like, POSTGRES)
def _match_folded_pg(element: folded_like, compiler: Compiler, **options: Any) -> str:
    value, pattern = _arguments(element, compiler, options)
    matches = f"invokeclone_casefold(invokeclone_unescape({value})) LIKE invokeclone_casefold({pattern}) ESCAPE ''"
    return f"(CASE WHEN {matches} THEN 1 ELSE 0 END)"


@compiles(julianday, POSTGRES)
def _julianday_pg(element: julianday, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"(CAST(extract(epoch FROM CAST({value} AS timestamp)) AS double precision) / 86400 + 2440587.5)"


@compiles(local_date, POSTGRES)
def _local_date_pg(element: local_date, compiler: Compiler, **options: Any) -> str:
    (value,) = _arguments(element, compiler, options)
    return f"to_char(CAST({value} AS timestamp) AT TIME ZONE 'UTC' AT TIME ZONE '{local_zone()}', 'YYYY/MM/DD')"


@compiles(like_ignoring_case, POSTGRES)
def _like_pg(element: like_ignoring_case, compiler: Compiler, **options: Any) -> str:
    value, pattern = _arguments(element, compiler, options)
    return f"{value} ILIKE {pattern} ESCAPE ''"


# The database's clock, as text in the format of kit/times.py. Leases are set and compared by it only, so that clock
# differences between machines have no effect.

_POSTGRES_FORMAT = "'YYYY-MM-DD HH24:MI:SS.MS'"
_POSTGRES_NOW = "(clock_timestamp() AT TIME ZONE 'utc')"


class _DatabaseTime(FunctionElement[str]):
    """The current time, plus the seconds in its argument if it has one."""

    type = Text()
    inherit_cache = True


@compiles(_DatabaseTime, "sqlite")
def _database_time(element: _DatabaseTime, compiler: Compiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    modifier = f", {seconds} || ' seconds'" if seconds else ""
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now'{modifier})"


@compiles(_DatabaseTime, POSTGRES)
def _database_time_pg(element: _DatabaseTime, compiler: Compiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    moment = f"{_POSTGRES_NOW} + make_interval(secs => {seconds})" if seconds else _POSTGRES_NOW
    return f"to_char({moment}, {_POSTGRES_FORMAT})"


def database_now() -> ColumnElement[str]:
    """Return the current time of the database."""
    return _DatabaseTime()


def database_now_plus(seconds: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the time of the database in `seconds`, usually a parameter."""
    return _DatabaseTime(seconds)
