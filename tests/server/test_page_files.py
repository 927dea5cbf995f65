"""The files of the built-in page agree with each other, refer to no other server, and put no text into markup."""

import re
from pathlib import Path

from invokeclone.server import page

FOLDER = Path(page.__file__).with_name("page")
TEXTS = {path.name: path.read_text() for path in FOLDER.iterdir() if path.is_file()}
HTML = TEXTS["index.html"]
MODULES = {name: text for name, text in TEXTS.items() if name.endswith(".js")}


def test_the_browser_is_told_of_all_modules_at_once() -> None:
    """Each module is loaded with the first ones, not only after the module that imports it."""
    named = re.findall(r'(?:modulepreload" href|src)="page/(\w+\.js)"', HTML)
    assert sorted(named) == sorted(MODULES)


def test_files_refer_to_no_other_server() -> None:
    for name, text in TEXTS.items():
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name


def test_texts_never_become_markup_or_code() -> None:
    for name, text in MODULES.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
    assert not re.search(r"<[^>]*\s(?:on\w+|style)=", HTML)
    assert not re.search(r"<script(?![^>]*\ssrc=)", HTML)


def test_elements_that_modules_look_up_exist() -> None:
    """Ids in `$("…")` and `for=` are those of elements, each used once."""
    ids = re.findall(r'\sid="([^"]+)"', HTML)
    assert len(ids) == len(set(ids))
    looked_up = set(re.findall(r'\sfor="([\w-]+)"', HTML))
    for text in MODULES.values():
        looked_up |= set(re.findall(r'\$\("([\w-]+)"\)', text))
    assert looked_up <= set(ids)
