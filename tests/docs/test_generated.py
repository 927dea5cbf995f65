"""Generated parts of the documents are as the code is now."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import write_docs
from tests.docs.pages import NAMES, PAGES, Page


def test_nothing_is_stale() -> None:
    """In a process of its own: other tests register nodes, which the generated tables would list."""
    script = write_docs.ROOT / "scripts" / "write_docs.py"
    process = subprocess.run(
        [sys.executable, script, "--check"], check=False, cwd=write_docs.ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, f"run `make docs`: {process.stdout}{process.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_marker_belongs_to_a_part(page: Page) -> None:
    parts = [match[2] for match in write_docs.PART.finditer(page.text)]
    assert page.text.count("<!-- generated: ") == page.text.count("<!-- end -->") - page.text.count("`<!-- end -->`")
    assert len(parts) == page.text.count("<!-- generated: ")
    assert set(parts) <= set(write_docs.PARTS)


def test_every_kind_of_generated_part_is_used() -> None:
    assert {match[2] for page in PAGES for match in write_docs.PART.finditer(page.text)} == set(write_docs.PARTS)


def test_a_snippet_shows_the_code_and_a_wrong_name_is_refused(tmp_path: Path) -> None:
    assert "class AddInvocation(BaseInvocation):" in write_docs.snippet("invokeclone/nodes/data/math.py#AddInvocation")
    assert write_docs.snippet("invokeclone/nodes/data/math.py#AddInvocation 2").count("\n") == 7
    with pytest.raises(SystemExit, match="has no Nothing"):
        write_docs.snippet("invokeclone/nodes/data/math.py#Nothing")


def test_pages_are_regenerated_when_the_code_changes() -> None:
    page = "a\n<!-- generated: limit_settings -->\nold\n<!-- end -->\nb\n"
    assert write_docs.render(page) == page.replace("old\n", write_docs.limit_settings(""))
