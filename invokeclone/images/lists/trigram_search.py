"""The text index of PostgreSQL databases: a column with the trigrams of each image's texts, and a GIN index.

No extension is needed: triggers fill `images_trigrams` (revision 0018). The index has folded text with plain letters, so
that a query is the trigrams of the term in its JSON forms. As in SQLite, its candidates are checked one by one, and it
is not used where it matches too many.
"""

import itertools
import json
import re
from collections.abc import Iterable
from functools import lru_cache

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Text,
    and_,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    type_coerce,
)

from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.tables import images

LENGTH = 3
MAX_CANDIDATES = 50_000
"""With more candidates, a page is not read by looking them up and sorting them."""
CACHED_STATEMENTS = 32
"""Compiled statements, one for each number of parts; most terms have one part."""

_INDEX = table("images_trigrams", column("image_id", BigInteger), column("trigrams", ARRAY(Text)))


def query(term: str) -> str | None:
    """Return the query for a term; None when the index does not help.

    It is JSON: for each form of the term in JSON, its parts between the wildcards of LIKE.
    """
    forms = sorted({term, json.dumps(term, ensure_ascii=False)[1:-1]})
    parts = [[part for part in re.split("[%_]", form) if len(part) >= LENGTH] for form in forms]
    return orjson.dumps(parts).decode() if all(parts) else None


def _matches(forms: Iterable[Iterable[ColumnElement[str]]]) -> ColumnElement[bool]:
    """Match the rows of the index with all trigrams of one of the forms, each given by its parts."""
    return or_(
        *[
            and_(*[_INDEX.c.trigrams.op("@>")(func.invokeclone_trigrams(func.casefold(part))) for part in parts])
            for parts in forms
        ]
    )


def candidates(text_query: str) -> ColumnElement[bool]:
    """Return the condition for images that may match; `text_query` of another database gives one that is not used."""
    if not text_query.startswith("[["):
        return images.c.image_id.is_(None)
    forms = ([literal(part) for part in parts] for parts in orjson.loads(text_query))
    return images.c.image_id.in_(select(_INDEX.c.image_id).where(_matches(forms)))


@lru_cache(maxsize=CACHED_STATEMENTS)
def _count(lengths: tuple[int, ...]) -> PreparedStatement:
    """Return the statement that counts the candidates of a query with these numbers of parts."""
    numbers = itertools.count()
    forms = [[type_coerce(parameter(f"part{next(numbers)}"), Text) for _ in range(length)] for length in lengths]
    first = select(_INDEX.c.image_id).where(_matches(forms)).limit(literal_column(str(MAX_CANDIDATES + 1))).subquery()
    return PreparedStatement(select(func.count()).select_from(first))


async def with_text_query(source: Source, image_filter: ImageFilter) -> ImageFilter:
    """Return the filter with the query of the text index, if the index helps."""
    text_query = query(image_filter.search_term or "")
    if text_query is None:
        return image_filter
    forms: list[list[str]] = orjson.loads(text_query)
    parts = {f"part{number}": part for number, part in enumerate(itertools.chain(*forms))}
    ((number,),) = await _count(tuple(map(len, forms))).rows(source, **parts)
    if number > MAX_CANDIDATES:
        return image_filter
    return image_filter.model_copy(update={"text_query": text_query, "few_found": True})
