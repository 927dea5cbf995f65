"""Import files (CSV, JSON) and export files (CSV) of style presets. Every function blocks."""

import csv
import io
import itertools
import json
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import Unprocessable
from invokeclone.kit.json_text import check_text, decode
from invokeclone.presets.errors import FileInvalid, FileUnknown
from invokeclone.presets.schemas import PresetRow

HEADER = ("name", "prompt", "negative_prompt")
_ROWS = TypeAdapter(list[PresetRow])


def first_error(error: ValidationError) -> str:
    """Return the first error as one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = ".".join(str(step) for step in first["loc"])
    return f"{location}: {first['msg']}" if location else first["msg"]


def read(data: bytes, content_type: str | None, limits: Limits) -> list[PresetRow]:
    """Return the presets in a file.

    Raises FileUnknown unless the file is CSV or JSON, FileInvalid if its content is invalid, Unprocessable or TooLarge
    if it exceeds a limit.
    """
    try:
        if content_type == "application/json":
            rows = decode(data, limits)
            _check_number(len(rows) if isinstance(rows, list) else 0, limits)
            return _ROWS.validate_python(rows)
        if content_type == "text/csv":
            return _ROWS.validate_python(_csv(data, limits))
    except json.JSONDecodeError as error:
        raise FileInvalid(f"the file is not JSON: {error}") from error
    except ValidationError as error:
        raise FileInvalid(f"the file is not a list of style presets: {first_error(error)}") from error
    raise FileUnknown(content_type)


def _check_number(rows: int, limits: Limits) -> None:
    if rows > limits.import_rows:
        raise Unprocessable(f"the file has more than {limits.import_rows} presets (setting limits.import_rows)")


def _csv(data: bytes, limits: Limits) -> list[dict[str, str]]:
    """Return the rows as dictionaries; the first line names the columns."""
    try:
        text = check_text(data.decode("utf-8-sig"), "the file")
        lines = (line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line)
        header, *rows = itertools.islice(lines, limits.import_rows + 2)
    except UnicodeDecodeError as error:
        raise FileInvalid("the file is not UTF-8 text") from error
    except csv.Error as error:
        raise FileInvalid(f"the file is not CSV: {error}") from error
    except ValueError as error:
        raise FileInvalid("the file is empty") from error
    _check_number(len(rows), limits)
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise FileInvalid("two columns have the same name")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise FileInvalid(f"row {number} has {len(row)} values, not {len(names)}")
    return [dict(zip(names, row, strict=True)) for row in rows]


def write(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """Return presets as CSV with a header, in UTF-8."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(HEADER)
    writer.writerows(rows)
    return file.getvalue().encode()
