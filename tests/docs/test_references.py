"""What the documents name exists: linked files and headings, paths, commands, settings, environment variables."""

import argparse
import re

import pytest
import yaml

from invokeclone.cli.main import parser
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings_file import FIELDS
from scripts.write_docs import PACKAGE, ROOT
from tests.docs.pages import NAMES, PAGES, Page

CURRENT = [name for name in NAMES if name != "CHANGELOG.md" and not name.startswith("docs/decisions/0")]
"""Pages about the code as it is; the others say what was so when they were written."""
EVERY = pytest.mark.parametrize("page", [Page(ROOT / name) for name in CURRENT], ids=CURRENT)
HEADERS = {"authorization"}
"""Names before a colon that are headers of HTTP, not settings."""
FOREIGN_YAML = {"scrape_configs", "services", "volumes"}
"""Keys at the top of YAML blocks that are other programs' files."""
READ_BY_LIBRARIES = {
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "RAY_AUTH_TOKEN_PATH",
    "SSL_CERT_FILE",
}
"""Environment variables that obstore, OpenSSL and Ray read."""
SOURCES = "\n".join(
    file.read_text("utf-8")
    for pattern in ("invokeclone/**/*.py", "scripts/*", "Dockerfile")
    for file in ROOT.glob(pattern)
    if file.is_file()
)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_resolves(page: Page) -> None:
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in Page(target).anchors, link


def test_every_page_is_in_the_index() -> None:
    index = next(page for page in PAGES if page.path == ROOT / "docs" / "README.md")
    linked = {link.partition("#")[0] for link in index.links}
    pages = {page.path.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.path.parent == ROOT / "docs"}
    assert pages - {"README.md"} <= linked


@EVERY
def test_every_path_exists(page: Page) -> None:
    tops = {entry.name for entry in ROOT.iterdir()} | {entry.name for entry in PACKAGE.iterdir()}
    for code in page.inline:
        name = code.split(" ")[0].rstrip("/")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+", name) or name.split("/")[0] not in tops:
            continue
        assert any((folder / name).exists() for folder in (ROOT, PACKAGE, page.path.parent)), name


@EVERY
def test_every_command_parses(page: Page) -> None:
    for words in page.commands:
        assert parses(words), f"invokeclone {' '.join(words)}"


def parses(words: list[str]) -> bool:
    """Tell whether the command line takes these words; a command that is only mentioned may lack its arguments."""
    argument: argparse.ArgumentParser = parser()
    for count, word in enumerate(words):
        below = [action for action in argument._actions if isinstance(action, argparse._SubParsersAction)]
        if not below or (word.startswith("-") and not below[0].required):
            break
        if word not in below[0].choices:
            return word == "--version" and len(words) == 1
        argument = below[0].choices[word]
        if count == len(words) - 1:
            return True
    try:
        parser().parse_args(words)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize(
    ("command", "valid"),
    [
        ("serve --port 9090", True),
        ("user key", True),
        ("generate", True),
        ("serve --prot 1", False),
        ("user", True),
        ("usr list", False),
        ("generate x", False),
        ("--version", True),
    ],
)
def test_invalid_commands_are_detected(command: str, valid: bool) -> None:
    assert parses(command.split()) is valid


@EVERY
def test_every_setting_exists(page: Page) -> None:
    for language, text in page.blocks:
        if language != "yaml" or FOREIGN_YAML & set(re.findall(r"^(\w+):", text, re.MULTILINE)):
            continue
        named = yaml.safe_load(re.sub(r"^# (\w+:)", r"\1", text, flags=re.MULTILINE))
        assert set(named) <= set(FIELDS)
        assert set(named.get("limits", {})) <= set(Limits.model_fields)
    for code in page.inline:
        if match := re.fullmatch(r"([a-z]+(?:_[a-z0-9]+)*): (?!.*://)\S.*", code):
            assert match[1] in FIELDS or match[1] in HEADERS, code
        if match := re.fullmatch(r"limits\.(\w+)", code):
            assert match[1] in Limits.model_fields, code
    for name in re.findall(r"INVOKEAI_([A-Z0-9_]+)", page.written):
        assert name.lower() in FIELDS or name == "ROOT", f"INVOKEAI_{name}"


@EVERY
def test_settings_in_tables_exist(page: Page) -> None:
    for table in re.findall(r"^\| setting \|.*\n\|[- |:]+\|\n((?:\|.*\n)+)", page.text, re.MULTILINE):
        for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE):
            assert name in FIELDS or name in Limits.model_fields, name


@EVERY
def test_every_environment_variable_is_read(page: Page) -> None:
    shell = "\n".join(text for language, text in page.blocks if language == "bash")
    sources = set(re.findall(r"(?:^|\s)([A-Z][A-Z0-9_]*)=\S", shell))
    named = {code for code in page.inline if re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)+", code)}
    for name in named | {name for name in sources if f"${name}" not in shell}:
        if name.startswith("INVOKEAI_") or name in READ_BY_LIBRARIES:
            continue  # the former are settings: the test above
        assert re.search(rf"""["'({{$]{name}["'):}}]""", SOURCES), f"{name} is not read"
