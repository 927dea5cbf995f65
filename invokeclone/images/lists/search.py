"""Searching metadata with LIKE, narrowed by a trigram text index where that helps.

The index has every sequence of three characters, case-insensitively. Its candidates are a superset of LIKE's matches,
so each one is checked with LIKE. For a shorter term, the trigrams that begin with it are queried if there are few. The
index is not used where it does not help: when it matches a large part of all images. A page of a list with many matches
is found faster by scanning the list.
"""

import itertools
import json
import re

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    UnaryExpression,
    cast,
    column,
    literal_column,
    select,
    table,
    text,
    union_all,
)
from sqlalchemy.sql.operators import custom_op

from invokeclone.images.lists import trigram_search
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.sql.functions import ByDatabase
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, dialect_of
from invokeclone.tables import app_state, images

TRIGRAM_LENGTH = 3
MAX_TRIGRAMS = 32
"""Maximum number of trigrams per query: a term may be long, and a few trigrams are selective enough."""

MAX_SORTED_CANDIDATES = 50_000
"""With more candidates than this, a page is not read by looking up and sorting them."""

MAX_CANDIDATE_SHARE = 0.5
"""With more candidates than this share of all images, looking each up takes as long as scanning all rows."""

MAX_PREFIX_TRIGRAMS = 128
"""Maximum number of trigrams that begin with a short term: with more of them, most images match."""

IN_A_TIME = re.compile(r"[-0-9 .:%_]*", re.ASCII)
"""Texts that may match a time; the end of a text is one."""

INDEXED = "images_text_until"
"""The key in `app_state` of the id of the last image in the index."""

_TEXTS = table("images_text", column("rowid", Integer))
_COUNT = PreparedStatement(
    text(
        "SELECT count(*), (SELECT coalesce(sum(number), 0) FROM image_counts) FROM images_text WHERE images_text MATCH :query"
    )
)

_PREFIX_TRIGRAMS = PreparedStatement(
    text(
        """
        WITH RECURSIVE begun (run, found) AS (
            SELECT :term, 0
            UNION ALL
            SELECT runs.term, begun.found + runs.doc FROM begun JOIN images_text_runs AS runs ON runs.term = (
                SELECT term FROM images_text_runs WHERE term > begun.run AND term < :after ORDER BY term LIMIT 1
            ) WHERE begun.found <= :most
        )
        SELECT run, found FROM begun LIMIT :runs
        """
    )
)
"""The trigrams that begin with a term, one after the other until they occur in `most` images; skip the first row."""

_IMAGES = PreparedStatement(text("SELECT coalesce(sum(number), 0) FROM image_counts"))


def forms(term: str) -> list[str]:
    """Return the forms of `term` in JSON: plain letters or escapes."""
    return sorted({term, json.dumps(term)[1:-1]})


def plain_forms(term: str) -> list[str]:
    """Return the forms of `term` in JSON with plain letters."""
    return sorted({term, json.dumps(term, ensure_ascii=False)[1:-1]})


def query(term: str) -> str | None:
    """Return the query of the text index; None when the index does not help. It folds the case of every script."""
    if "\0" in term:
        return None
    parts = [_trigrams(form) for form in (forms(term) if term.isascii() else plain_forms(term))]
    if not all(parts):
        return None
    clauses = [f"({' AND '.join(part)})" for part in parts]
    if not term.isascii():
        clauses.append(_escape_query(term))
    return " OR ".join(clauses)


def _escape_query(term: str) -> str:
    """Return the query for text with escaped letters: each letter of the term, in either case."""
    letters = [letter for letter in dict.fromkeys(term) if not letter.isascii()][: MAX_TRIGRAMS // 4]
    return f"({' AND '.join(_letter_query(letter) for letter in letters)})"


def _letter_query(letter: str) -> str:
    cases = dict.fromkeys((letter, letter.lower(), letter.upper(), letter.casefold()))
    clauses = [
        f"({' AND '.join(_trigrams(json.dumps(case)[1:-1]))})"
        for case in cases
        if len(case) == 1 and not case.isascii()
    ]
    return f"({' OR '.join(clauses)})"


def _trigrams(form: str) -> list[str]:
    """Return the distinct quoted trigrams between the wildcards of a LIKE pattern."""
    trigrams = (
        literal_part[start : start + TRIGRAM_LENGTH]
        for literal_part in re.split("[%_]", form)
        for start in range(len(literal_part) - TRIGRAM_LENGTH + 1)
    )
    return [_quote(trigram) for trigram in dict.fromkeys(trigrams)][:MAX_TRIGRAMS]


def _quote(trigram: str) -> str:
    return '"{}"'.format(trigram.replace('"', '""'))


async def _short_query(source: Source, term: str) -> str | None:
    """Return the query for a term of one or two characters; None when the index does not help.

    Every trigram that begins with the term matches it, except at the end of a text.
    """
    if not term.isprintable() or "%" in term or "_" in term or IN_A_TIME.fullmatch(term):
        return None
    ((image_count,),) = await _IMAGES.rows(source)
    clauses: list[str] = []
    max_matches = max(MAX_CANDIDATE_SHARE * image_count, MAX_SORTED_CANDIDATES)
    for form in forms(term) if term.isascii() else plain_forms(term):
        if trigrams := _trigrams(form):
            clauses.append(f"({' AND '.join(trigrams)})")
            continue
        for begin in _cases(form):
            values = {
                "term": begin,
                "after": f"{begin}\U0010ffff",
                "most": max_matches,
                "runs": MAX_PREFIX_TRIGRAMS + 1,
            }
            rows = await _PREFIX_TRIGRAMS.rows(source, **values)
            if len(rows) > MAX_PREFIX_TRIGRAMS or rows[-1][1] > max_matches:
                return None
            clauses += [_quote(trigram) for trigram, _ in rows]
    if not term.isascii():
        clauses.append(_escape_query(term))
    return " OR ".join(clauses)


def _cases(term: str) -> set[str]:
    """Return the forms of a short term in the index: lower case, or for other scripts either case."""
    if term.isascii():
        return {term.lower()}
    cases = [{letter, letter.lower(), letter.upper(), letter.casefold()} for letter in term]
    return {"".join(letters) for letters in itertools.product(*cases)}


async def with_text_query(source: Source, image_filter: ImageFilter) -> ImageFilter:
    """Return the filter with the query of the text index, if the index helps."""
    if not image_filter.search_term:
        return image_filter
    if dialect_of(source) == "postgresql":
        return await trigram_search.with_text_query(source, image_filter)
    short = len(image_filter.search_term) < TRIGRAM_LENGTH
    text_query = await _short_query(source, image_filter.search_term) if short else query(image_filter.search_term)
    if text_query is None:
        return image_filter
    ((match_count, total),) = await _COUNT.rows(source, query=text_query)
    if match_count > max(MAX_CANDIDATE_SHARE * total, MAX_SORTED_CANDIDATES):
        return image_filter
    return image_filter.model_copy(update={"text_query": text_query, "few_found": match_count <= MAX_SORTED_CANDIDATES})


def for_page(image_filter: ImageFilter) -> ImageFilter:
    """Return the filter for reading a page.

    Counting and listing all names use the text index for more matches than a page does.
    """
    return image_filter if image_filter.few_found else image_filter.model_copy(update={"text_query": None})


def without_index(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition in a form that prevents SQLite's use of an index: the candidates are looked up first."""
    prevented = UnaryExpression(condition.self_group(), operator=custom_op("+"), type_=Boolean())
    return ByDatabase(sqlite=prevented, postgresql=condition)


def candidates(text_query: str) -> ColumnElement[bool]:
    """Return the condition for images that may match: those found by the index, and those not indexed yet."""
    until = select(cast(app_state.c.value, Integer)).where(app_state.c.key == INDEXED).scalar_subquery()
    matches = select(_TEXTS.c.rowid).where(literal_column("images_text").op("MATCH")(text_query))
    newest = images.alias("newest")
    later = select(newest.c.image_id).where(newest.c.image_id > until)
    by_trigrams = trigram_search.candidates(text_query)
    return ByDatabase(sqlite=images.c.image_id.in_(union_all(matches, later)), postgresql=by_trigrams)
