"""The documents have every package, command and setting that is there, and nothing that is not."""

import argparse
import re
from pathlib import Path

import pytest

from invokeclone.kit.config.settings_file import FIELDS

HERE = Path(__file__).parent.parent
PACKAGE = HERE / "invokeclone"
ARCHITECTURE = (HERE / "ARCHITECTURE.md").read_text()
README = (HERE / "README.md").read_text()
CODE = {file: file.read_text() for file in PACKAGE.rglob("*.py") if "settings" not in file.name}


def packages() -> set[str]:
    return {f"{folder.name}/" for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()} | {"tables.py"}


def test_every_package_has_its_line_in_the_architecture_and_no_other_has() -> None:
    table = ARCHITECTURE.split("## Packages")[1].split("###")[0]
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == packages()


def test_every_package_states_in_one_sentence_what_it_is() -> None:
    for package in packages() - {"tables.py"}:
        text = (PACKAGE / package / "__init__.py").read_text().strip()
        assert re.fullmatch(r'"""[^"]+\."""', text), package


def test_files_that_the_architecture_names_exist() -> None:
    named = ARCHITECTURE + (HERE / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)", named):
        assert (PACKAGE / name).exists() or (HERE / name).exists(), name


def read(setting: str, code: str) -> bool:
    """Tell whether code outside the settings' own files asks for the setting, or for the path made of it."""
    settings_code = (PACKAGE / "kit" / "settings.py").read_text()
    path = re.search(rf"def (\w+)\(self\) -> Path:\n.*\n\s+return self\.under_root\(self\.{setting}\)", settings_code)
    names = [setting, *([path[1]] if path else [])]
    return any(re.search(rf"(settings|config\.get\(\))\.{name}\b", code) for name in names)


def test_readme_lists_exactly_the_settings_that_nothing_reads_yet() -> None:
    code = "\n".join(CODE.values())
    section = README.split("### Settings that nothing reads yet")[1].split("\n#")[0]
    assert set(re.findall(r"`([a-z0-9_]+)`", section)) == {name for name in FIELDS if not read(name, code)}


def test_every_command_is_in_the_readme() -> None:
    from invokeclone.cli.main import parser

    (commands,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for command in commands.choices:
        assert f"`invokeclone {command}" in README, command


def test_no_file_is_over_the_limit() -> None:
    """Tables of data excepted, which say so in their first line."""
    for file, text in CODE.items():
        lines = text.count("\n")
        assert lines <= 600 or text.splitlines()[0].startswith('"""Table'), f"{file}: {lines} lines"


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "manager", "base", "impl"])
def test_no_module_has_a_name_that_says_nothing(word: str) -> None:
    assert [file for file in PACKAGE.rglob("*.py") if file.stem == word] == []


def test_no_stub_is_left() -> None:
    for file, text in CODE.items():
        assert "NotImplementedError" not in text, file
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", text), file
