"""The files of the built-in page agree with each other, refer to no other server, and put no text into markup."""

import re
from pathlib import Path

from invokeclone.server import page

FOLDER = Path(page.__file__).with_name("page")
TEXTS = {path.name: path.read_text() for path in FOLDER.iterdir() if path.is_file()}
HTML = TEXTS["index.html"]
MODULES = {name: text for name, text in TEXTS.items() if name.endswith(".js")}


def test_all_modules_are_sent_as_one() -> None:
    files, _version = page.load(page.POLICY, multiuser=False)
    script = files["app.js"].plain.decode()
    assert sorted(re.findall(r"^\(\(\) => \{ // (\w+\.js)$", script, re.MULTILINE)) == sorted(MODULES)
    assert [name for name in files if name.endswith(".js")] == ["app.js"]
    assert not re.search(r"^\s*(?:import|export)\b", script, re.MULTILINE)


def test_lists_that_require_a_sign_in_are_not_preloaded_with_accounts() -> None:
    expected = {False: 3, True: 1}
    for multiuser, count in expected.items():
        html = page.load(page.POLICY, multiuser=multiuser)[0]["index.html"].plain.decode()
        preloaded = re.findall(r'<link rel="preload" as="fetch" crossorigin href="(api/[^"]+)"', html)
        assert (len(preloaded), preloaded[0]) == (count, "api/v1/auth/status")


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
