"""The page's modules are joined into one that behaves like them."""

import pytest

from invokeclone.server.page_script import ModuleError, join

LEAF = """// A leaf.
export const $ = (id) => id;
export class Failure extends Error {}
export async function call() {}
"""


def test_imports_come_before_importers() -> None:
    modules = {
        "app": 'import * as list from "./list.js";\nimport { $ } from "./leaf.js";\nlist.prepare($("a"));\n',
        "list": 'import { $, Failure as Error } from "./leaf.js";\n\nexport function prepare() { return $; }\n',
        "leaf": LEAF,
        "unused": "export const a = 1;\n",
    }
    assert join(modules, "app").splitlines() == [
        "const module_leaf = {};",
        "const module_list = {};",
        "const module_app = {};",
        "(() => { // leaf.js",
        "// A leaf.",
        "const $ = (id) => id;",
        "class Failure extends Error {}",
        "async function call() {}",
        "Object.assign(module_leaf, { $, Failure, call });",
        "})();",
        "(() => { // list.js",
        "const { $, Failure: Error } = module_leaf;",
        "",
        "function prepare() { return $; }",
        "Object.assign(module_list, { prepare });",
        "})();",
        "(() => { // app.js",
        "const list = module_list;",
        "const { $ } = module_leaf;",
        'list.prepare($("a"));',
        "Object.assign(module_app, {  });",
        "})();",
    ]


def test_modules_may_import_each_other_as_a_whole() -> None:
    modules = {
        "a": 'import * as b from "./b.js";\nexport function one() { return b.two(); }\n',
        "b": 'import * as a from "./a.js";\nexport function two() { return a.one(); }\n',
    }
    assert "const a = module_a;" in join(modules, "a")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('import { one } from "./app.js";\n', "leaf.js and app.js import each other"),
        ('import { one } from "./nothing.js";\n', "leaf.js imports nothing.js, which does not exist"),
        ("export let one = 1;\n", "import or export of another form: export let one = 1;"),
        ("export default 1;\n", "another form: export default 1;"),
        ("export { one };\n", "another form"),
        ('import one from "./app.js";\n', "another form"),
        ('  import("./app.js");\n', "another form"),
    ],
)
def test_what_cannot_be_joined_is_refused(code: str, message: str) -> None:
    with pytest.raises(ModuleError, match=message):
        join({"app": 'import * as leaf from "./leaf.js";\nexport const one = leaf;\n', "leaf": code}, "app")
