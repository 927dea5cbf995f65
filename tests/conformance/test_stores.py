"""Every function that runs SQL gives the same results on SQLite and on PostgreSQL.

The way of River's `riverdrivertest`: one suite of cases, run against each database. A function without a case fails.
"""

import ast
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import invokeclone
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.sql.database import open_database
from tests.conformance.cases import CASES, Calls
from tests.postgres import PostgresServer

PACKAGE = Path(invokeclone.__file__).parent
DATABASES = {"Changes", "Source", "AsyncConnection", "Database"}
STATEMENTS = {"select", "insert", "update", "delete", "func", "text", "PreparedStatement", "DialectSql"}

for file in sorted(Path(__file__).parent.glob("*_cases.py")):
    importlib.import_module(f"tests.conformance.{file.stem}")

EXCEPT = {
    "invokeclone.images.lists.trigram_search.with_text_query": "PostgreSQL's part of search.with_text_query",
    "invokeclone.queue.bulk_counts.without_trigger": "a context manager, used by bulk.cancel_idle",
    "invokeclone.queue.bulk_counts.sum_up": "has effect in PostgreSQL only: tests/kit/test_postgres_claims.py",
    "invokeclone.queue.generation.extras": "runs statements of models.records.store only",
}
"""Functions or modules without a case, with the reason."""


def functions_with_sql() -> Iterator[str]:
    """Yield the names of the public functions that take a connection, of modules that write statements."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "kit" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        imports = {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and "sql" in (node.module or "")
            for alias in node.names
        }
        if not imports & STATEMENTS:
            continue
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in tree.body:
            if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                if any(DATABASES & {ast.unparse(item.annotation)} for item in arguments if item.annotation):
                    yield f"{module}.{node.name}"


@pytest.fixture(scope="module")
def postgres_url(postgres: PostgresServer) -> str:
    return postgres.new_database()


COVERED: set[str] = set()


@pytest.mark.parametrize("name", CASES)
async def test_both_databases_give_the_same_results(
    name: str, tmp_path: Path, migrated: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    settings = Settings(root=tmp_path, device="cpu", log_format="plain")
    settings.database_path.parent.mkdir(parents=True)
    shutil.copyfile(migrated, settings.database_path)
    postgres.empty(postgres_url)
    transcripts = []
    for chosen in (settings, settings.model_copy(update={"database_url": postgres_url})):
        database = open_database(chosen)
        calls = Calls(chosen, database)
        try:
            await CASES[name](calls)
        finally:
            await database.close()
        transcripts.append(calls.transcript)
    of_sqlite, of_postgres = transcripts
    assert of_sqlite
    assert of_postgres == of_sqlite
    COVERED.update(function for function, _ in of_sqlite)


def test_every_function_with_sql_has_a_case(request: pytest.FixtureRequest) -> None:
    """Runs after the cases; skipped when only some of them ran."""
    ran = {item.name for item in request.session.items if item.path == request.path}
    if not {f"test_both_databases_give_the_same_results[{name}]" for name in CASES} <= ran:
        pytest.skip("needs the results of all cases")
    expected = {name for name in functions_with_sql() if not {name, name.rpartition(".")[0]} & EXCEPT.keys()}
    assert sorted(expected - COVERED) == []
