"""Joins the page's ES modules into one module at start, so that the browser makes one request instead of one per module.

Each module becomes a function that returns its exports; modules run in the order of ECMAScript: imports before importers.
Modules that import each other use `import * as`, whose functions are looked up when they are called.
"""

import re
from collections.abc import Iterator, Mapping

_IMPORT = re.compile(
    r'^import (?:\* as (?P<whole>\w+)|(?P<names>\{ [\w$, ]+ \})) from "\./(?P<module>\w+)\.js";$', re.MULTILINE
)
_EXPORT = re.compile(r"^export (?=(?:const|class|function|async function) (?P<name>[\w$]+))", re.MULTILINE)
_STATEMENT = re.compile(r"^\s*(?:import|export)\b.*$", re.MULTILINE)


class ModuleError(ValueError):
    """A module of the page cannot be joined with the others."""


def join(modules: Mapping[str, str], entry: str) -> str:
    """Return the code of the module `entry` with all modules that it imports, by their names without `.js`."""
    order = list(_in_order(modules, entry, []))
    declarations = "".join(f"const {_variable(name)} = {{}};\n" for name in order)
    bodies = [_wrap(name, modules[name], order[: order.index(name)]) for name in order]
    return declarations + "".join(bodies)


def _in_order(modules: Mapping[str, str], name: str, entered: list[str]) -> Iterator[str]:
    """Yield a module after those that it imports; one whose imports are being followed is left out."""
    entered.append(name)
    for match in _IMPORT.finditer(modules[name]):
        if match["module"] not in modules:
            raise ModuleError(f"{name}.js imports {match['module']}.js, which does not exist")
        if match["module"] not in entered:
            yield from _in_order(modules, match["module"], entered)
    yield name


def _variable(name: str) -> str:
    return f"module_{name}"


def _wrap(name: str, code: str, earlier: list[str]) -> str:
    """Return a module as a function that is called at once and fills the object of the module's exports."""

    def bind(match: re.Match[str]) -> str:
        variable = _variable(match["module"])
        if match["whole"]:
            return f"const {match['whole']} = {variable};"
        if match["module"] not in earlier:
            raise ModuleError(f"{name}.js and {match['module']}.js import each other: import all of it (* as)")
        return f"const {match['names'].replace(' as ', ': ')} = {variable};"

    exports = [match["name"] for match in _EXPORT.finditer(code)]
    body = _EXPORT.sub("", _IMPORT.sub(bind, code))
    unknown = _STATEMENT.search(body)
    if unknown:
        raise ModuleError(f"{name}.js has an import or export of another form: {unknown[0].strip()}")
    return f"(() => {{ // {name}.js\n{body}Object.assign({_variable(name)}, {{ {', '.join(exports)} }});\n}})();\n"
