"""Searching metadata: a term becomes a query of the text index where that narrows the search; the search itself stays LIKE.

The index knows every run of three characters, whatever their case. What it finds holds all that LIKE would, and more: each
image found is looked at again. Of a shorter term it is asked the runs that begin with it, if there are few. It is not asked
where it would not help: when it finds a large part of all images. A page of a list of many is found sooner by going through
the list.
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

from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source
from invokeclone.tables import app_state, images

TRIGRAM_LENGTH = 3
MAX_TRIGRAMS = 32
"""Runs asked for at most: a term may be long, and a few of them narrow enough."""

MAX_SORTED_CANDIDATES = 50_000
"""With more candidates than this, a page's are not looked up and sorted."""

MAX_CANDIDATE_SHARE = 0.5
"""With more candidates than this share of all images, looking each up costs as much as reading all rows in turn."""

MAX_PREFIX_TRIGRAMS = 128
"""Runs that begin with a short term: with more of them, most images hold it."""

IN_A_TIME = re.compile(r"[-0-9 .:%_]*", re.ASCII)
"""What may be found in a time; the end of a text is one."""

INDEXED = "images_text_until"
"""The key in `app_state` of the number of the last image in the index."""

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
"""The runs that begin with a term, one after the other until they are in `most` images together; the first row is none."""

_IMAGES = PreparedStatement(text("SELECT coalesce(sum(number), 0) FROM image_counts"))


def forms(term: str) -> list[str]:
    """Return the ways in which `term` may stand in JSON: its letters written out or as escapes."""
    return sorted({term, json.dumps(term)[1:-1]})


def plain_forms(term: str) -> list[str]:
    """Return the ways in which `term` may stand in JSON whose letters are written out."""
    return sorted({term, json.dumps(term, ensure_ascii=False)[1:-1]})


def query(term: str) -> str | None:
    """Return what the text index is asked for; None when it can't help. It knows the case of every script's letters."""
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
    """Return what the index is asked for text whose letters are escapes: each letter of the term, in either case."""
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
    """Return the quoted runs of three characters between the wildcards of a LIKE pattern, each once."""
    trigrams = (
        literal_part[start : start + TRIGRAM_LENGTH]
        for literal_part in re.split("[%_]", form)
        for start in range(len(literal_part) - TRIGRAM_LENGTH + 1)
    )
    return [_quote(trigram) for trigram in dict.fromkeys(trigrams)][:MAX_TRIGRAMS]


def _quote(trigram: str) -> str:
    return '"{}"'.format(trigram.replace('"', '""'))


async def _short_query(source: Source, term: str) -> str | None:
    """Return what the index is asked for a term of one or two characters; None when it can't help.

    Every run that begins with the term finds it, save where it ends a text.
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
    """Return how the index may write a short term: it knows lower case, of some scripts either."""
    if term.isascii():
        return {term.lower()}
    cases = [{letter, letter.lower(), letter.upper(), letter.casefold()} for letter in term]
    return {"".join(letters) for letters in itertools.product(*cases)}


async def with_text_query(source: Source, image_filter: ImageFilter) -> ImageFilter:
    """Return the filter with what the text index is asked for, if it is to be asked."""
    if not image_filter.search_term:
        return image_filter
    short = len(image_filter.search_term) < TRIGRAM_LENGTH
    text_query = await _short_query(source, image_filter.search_term) if short else query(image_filter.search_term)
    if text_query is None:
        return image_filter
    ((match_count, total),) = await _COUNT.rows(source, query=text_query)
    if match_count > max(MAX_CANDIDATE_SHARE * total, MAX_SORTED_CANDIDATES):
        return image_filter
    return image_filter.model_copy(update={"text_query": text_query, "few_found": match_count <= MAX_SORTED_CANDIDATES})


def for_page(image_filter: ImageFilter) -> ImageFilter:
    """Return the filter with which a page is read: counting and listing all ask the text index for more than a page does."""
    return image_filter if image_filter.few_found else image_filter.model_copy(update={"text_query": None})


def without_index(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition in a form that no index is read for: the candidates are looked up first."""
    return UnaryExpression(condition.self_group(), operator=custom_op("+"), type_=Boolean())


def candidates(text_query: str) -> ColumnElement[bool]:
    """Return the condition that an image may match: the index says so, or the image is not in the index yet."""
    until = select(cast(app_state.c.value, Integer)).where(app_state.c.key == INDEXED).scalar_subquery()
    matches = select(_TEXTS.c.rowid).where(literal_column("images_text").op("MATCH")(text_query))
    newest = images.alias("newest")
    later = select(newest.c.image_id).where(newest.c.image_id > until)
    return images.c.image_id.in_(union_all(matches, later))
