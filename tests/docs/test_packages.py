"""The architecture has every package that exists and no other, and files and modules are as its rules say."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
PACKAGE = HERE / "invokeclone"
ARCHITECTURE = (HERE / "ARCHITECTURE.md").read_text()
CODE = {file: file.read_text() for file in PACKAGE.rglob("*.py") if "settings" not in file.name}


def packages() -> set[str]:
    return {f"{folder.name}/" for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()} | {"tables.py"}


def test_architecture_table_lists_exactly_the_packages() -> None:
    table = ARCHITECTURE.split("## Packages")[1].split("###")[0]
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == packages()


def test_every_package_has_a_one_sentence_docstring() -> None:
    for package in packages() - {"tables.py"}:
        text = (PACKAGE / package / "__init__.py").read_text().strip()
        assert re.fullmatch(r'"""[^"]+\."""', text), package


def test_no_file_exceeds_the_line_limit() -> None:
    """Tables of data excepted, which say so in their first line."""
    for file, text in CODE.items():
        lines = text.count("\n")
        assert lines <= 600 or text.splitlines()[0].startswith('"""Table'), f"{file}: {lines} lines"


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "manager", "base", "impl"])
def test_no_module_has_a_generic_name(word: str) -> None:
    assert [file for file in PACKAGE.rglob("*.py") if file.stem == word] == []


def test_no_stubs_remain() -> None:
    for file, text in CODE.items():
        assert "NotImplementedError" not in text, file
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), file
