"""Searching metadata: the text index narrows it and changes nothing of what is found."""

import json
import random
from typing import Any, ClassVar

import pytest
from sqlalchemy import insert
from sqlalchemy.dialects import sqlite

from invokeclone.images import store
from invokeclone.images.gallery import store as gallery
from invokeclone.images.lists import search, trigram_search
from invokeclone.images.schemas import ImageFilter
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.prepared_statements import PreparedStatement
from invokeclone.tables import images

WORDS = [
    "zebra",
    "Zebra",
    "ZEBRA crossing",
    "gnu",
    "50% off",
    "a_b",
    'say "hi"',
    "Ärger",
    "ÄRGER",
    "ä",
    "日本語",
    "back\\slash",
    "🦓",
]


@pytest.fixture
async def filled(resources: Resources) -> Resources:
    """Fill the gallery with 300 images, 256 of them in the index."""
    rng = random.Random(7)
    rows = []
    for number in range(300):
        prompt = {"positive_prompt": " ".join(rng.sample(WORDS, 3)), "seed": number * 7919}
        text = json.dumps(prompt, ensure_ascii=number % 2 == 0) if number % 11 else None
        rows.append(
            {
                "image_name": f"{number:05}.png", "image_origin": "internal", "image_category": "general", "width": 1,
                "height": 1, "is_intermediate": number % 5 == 0, "starred": number % 50 == 0, "metadata": text,
                "created_at": f"2026-{1 + number % 12:02}-15 10:{number % 60:02}:00.000", "updated_at": "x",
            }
        )  # fmt: skip
    async with resources.database.write() as connection:
        await connection.execute(insert(images), rows)
    return resources


TERMS = [
    "zebra", "ZEB", "ebr", "zebra crossing", "crossing zebra", "gnu", "positive_prompt", "qqq", "50% off", "50%off", "%", "_",
    "a_b", "a__b", "z%b%a", "zeb%", "%zebra%", 'say "hi"', '"', "Ärger", "ärger", "ÄRGER", "ä", "日本語", "日本", "back\\slash",
    "\\", "🦓", "2026-03", "2026-03-15 10:02", "-15 1", "7919", "o", "ze", "' OR 1=1", '") OR (', "a\0b", "zeb\0ra", " ", "   ",
    "AND", "NOT zebra", "text:zebra", "zebra*", "^zebra", "zebra " * 300,
]  # fmt: skip


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("more", [{}, {"is_intermediate": False, "starred_first": False}])
async def test_the_index_does_not_change_results(filled: Resources, term: str, more: dict[str, bool]) -> None:
    plain = ImageFilter(search_term=term, **more)
    async with filled.database.read() as connection:
        narrowed = await search.with_text_query(connection, plain)
        results = [
            json.loads(b"".join(await store.names_json(connection, image_filter))) for image_filter in (plain, narrowed)
        ]
        pages = [
            json.loads(await store.page_json(connection, image_filter, 2, 5)) for image_filter in (plain, narrowed)
        ]
    assert results[0] == results[1]
    assert pages[0] == pages[1]
    assert pages[1]["total"] == results[1]["total_count"] == len(results[1]["image_names"])
    assert [item["image_name"] for item in pages[1]["items"]] == results[1]["image_names"][2:7]


@pytest.mark.parametrize(
    ("term", "asked"),
    [
        ("zebra", '("zeb" AND "ebr" AND "bra")'),
        ("ab%cde_fg", '("cde")'),
        ("aaaaa", '("aaa")'),
        ("ze", None),
        ("ab_cd", None),
        ("", None),
        ("abc\0", None),
    ],
)
def test_text_query_of_a_term(term: str, asked: str | None) -> None:
    assert search.query(term) == asked


def test_text_query_of_a_long_term_is_limited() -> None:
    text_query = search.query("".join(chr(0x4E00 + number) for number in range(4000)))
    assert text_query is not None
    assert text_query.count(" AND ") <= 2 * search.MAX_TRIGRAMS


@pytest.mark.sqlite("queries of SQLite's text index")
@pytest.mark.parametrize(
    ("term", "asked"),
    [("cr", '"cr" OR "cro"'), ("qz", '"qz"'), ("o", None), ("26", None), ("a%", None), ("a\0", None)],
)
async def test_text_query_of_a_short_term(
    filled: Resources, monkeypatch: pytest.MonkeyPatch, term: str, asked: str | None
) -> None:
    """Every run that begins with it, if they are few; not for what may end a time, and a text with it."""
    monkeypatch.setattr(search, "MAX_SORTED_CANDIDATES", 10)
    async with filled.database.read() as connection:
        image_filter = await search.with_text_query(connection, ImageFilter(search_term=term, is_intermediate=False))
    assert image_filter.text_query == asked


@pytest.mark.sqlite("queries of SQLite's text index")
async def test_common_terms_do_not_use_the_index(filled: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    image_filter = ImageFilter(search_term="positive_prompt")
    async with filled.database.read() as connection:
        assert (await search.with_text_query(connection, image_filter)).text_query is not None
        monkeypatch.setattr(search, "MAX_SORTED_CANDIDATES", 100)
        assert await search.with_text_query(connection, image_filter) == image_filter


@pytest.mark.sqlite("queries of SQLite's text index")
async def test_many_matches_use_the_index_for_counts_but_not_for_pages(
    filled: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_SORTED_CANDIDATES", 10)
    plain = ImageFilter(search_term="zebra", is_intermediate=False)
    async with filled.database.read() as connection:
        many = await search.with_text_query(connection, plain)
        assert many.text_query is not None
        assert search.for_page(many) == plain.model_copy(update={"few_found": False})
        for offset in (0, 17, 40):
            for pages in (store.page_json, gallery.page_json):
                assert await pages(connection, many, offset, 5) == await pages(connection, plain, offset, 5)


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize("more", [{}, {"starred_first": False}, {"order_dir": "ASC"}, {"board_id": "none"}])
async def test_only_candidates_are_read(filled: Resources, more: dict[str, object]) -> None:
    """And not the gallery's index from its start to its end."""
    image_filter = ImageFilter(search_term="zebra", text_query=search.query("zebra"), is_intermediate=False, **more)
    part = {"skip": 0, "take": 10}
    statements = [
        store.count_statement(image_filter),
        store.all_names(image_filter),
        store.page_names(image_filter).params(part),
    ]
    statements += [gallery.all_names(image_filter), gallery.page_refs(image_filter).params(part)]
    async with filled.database.read() as connection:
        for statement in statements:
            text = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
            plan = [row[3] for row in (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")).all()]
            read = [step for step in plan if step.startswith(("SEARCH images ", "SCAN images "))]
            assert read == ["SEARCH images USING INTEGER PRIMARY KEY (rowid=?)"], plan


@pytest.mark.parametrize(
    "term", ["рыжий кот", "РЫЖИЙ", "Кот", "ЖИЙ КО", "straße", "кот%рыж", "ы", "К_т", 'сказал "мяу"', "е́"]
)
@pytest.mark.parametrize("ascii_only", [True, False])
async def test_search_is_case_insensitive_in_every_script(resources: Resources, term: str, ascii_only: bool) -> None:
    texts = ["Рыжий КОТ", "рЫжИй кот", "РЫЖИЙ КОТ, Straße", "кот и рыжий", 'Сказал "Мяу"', "е́Ж", "dog", None]
    rows = [
        {
            "image_name": f"{number}.png", "image_origin": "internal", "image_category": "general", "width": 1, "height": 1,
            "metadata": None if text is None else json.dumps({"p": text}, ensure_ascii=ascii_only),
            "created_at": "2026-01-01 00:00:00.000", "updated_at": "x",
        }
        for number, text in enumerate(texts * 40)
    ]  # fmt: skip
    async with resources.database.write() as connection:
        await connection.execute(insert(images), rows)
    pattern = term.casefold().replace("%", "\0").replace("_", "\1")
    expected = sum(_matches(text, pattern) for text in texts if text) * 40
    async with resources.database.read() as connection:
        plain = ImageFilter(search_term=term)
        for image_filter in (plain, await search.with_text_query(connection, plain)):
            result = json.loads(b"".join(await store.names_json(connection, image_filter)))
            assert len(result["image_names"]) == expected > 0, image_filter


def _matches(text: str, pattern: str) -> bool:
    import re

    parts = {"\0": ".*", "\1": "."}
    return re.search("".join(parts.get(x) or re.escape(x) for x in pattern), text.casefold()) is not None


async def test_postgresqls_count_of_candidates_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    compile_one = PreparedStatement._compile
    monkeypatch.setattr(
        PreparedStatement, "_compile", lambda statement, d: compiled.append(d) or compile_one(statement, d)
    )

    class Connection:
        values: ClassVar[list[Any]] = []

        async def fetch_rows(self, _sql: str, values: Any) -> Any:
            self.values.append(values)
            return [(3,)]

    connection: Any = Connection()
    trigram_search._count.cache_clear()
    for term in ("zebra", "giraffe%lion", "tiger", "horse%cow"):
        narrowed = await search.with_text_query(connection, ImageFilter(search_term=term))
        assert narrowed.text_query == trigram_search.query(term)
    assert Connection.values == [("zebra",), ("giraffe", "lion"), ("tiger",), ("horse", "cow")]
    assert len(compiled) == 2
