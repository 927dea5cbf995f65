"""Write the generated parts of the documents and configs/invokeai.example.yaml: python scripts/write_docs.py [--check].

A generated part is between `<!-- generated: KIND ARGUMENT -->` and `<!-- end -->`; KIND is a function of PARTS. Its
content comes from the imported or parsed code, so a document cannot contradict the code. `--check` writes nothing,
lists each stale file and fails.
"""

import argparse
import ast
import re
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import APIRouter

from invokeclone.cli.main import parser as command_line
from invokeclone.engine.loading import loaders
from invokeclone.graph.invocations import registry, unsupported_nodes
from invokeclone.graph.recipes import recipes
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.kit.config import limits, settings_file
from invokeclone.kit.config.no_effect import NO_EFFECT
from invokeclone.kit.config.settings import Settings
from invokeclone.models.identify import registry as identification
from invokeclone.server.app import create_app
from invokeclone.shims.automatic1111 import api as automatic1111
from invokeclone.shims.comfyui import api as comfyui
from invokeclone.shims.comfyui.nodes import TYPES, unsupported
from invokeclone.shims.gemini import api as gemini
from invokeclone.shims.openai import api as openai

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "invokeclone"
EXAMPLE = ROOT / "configs" / "invokeai.example.yaml"
PART = re.compile(r"(<!-- generated: (\w+)(?: ([^\n]+?))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
HTTP = ("get", "post", "put", "patch", "delete")


def documents() -> list[Path]:
    """Return the repository's Markdown files."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def table(*header: str, rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def cell(text: object) -> str:
    """Return text as one table cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def snippet(argument: str) -> str:
    """Return the source of `PATH#NAME`, `PATH#CLASS.FIELD` or `PATH#DICT[KEY]`.

    A number after it limits the lines.
    """
    reference, _, count = argument.partition(" ")
    path, _, name = reference.partition("#")
    text = (ROOT / path).read_text(encoding="utf-8")
    node = find(ast.parse(text), name)
    if node is None:
        raise SystemExit(f"{path} has no {name}, which a snippet refers to")
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    if count and len(lines) > int(count):
        lines = [*lines[: int(count)], "    …"]
    return f"`{path}`\n\n```python\n{textwrap.dedent(chr(10).join(lines)).rstrip()}\n```\n"


def find(tree: ast.AST, name: str) -> ast.stmt | ast.expr | None:
    """Return the node that defines a name in a module or class, or the value of a key of a dictionary there."""
    name, _, key = name.rstrip("]").partition("[")
    outer, _, inner = name.partition(".")
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.stmt) or outer not in definition_of(node):
            continue
        if inner:
            return find(node, inner)
        return value_of(node, key) if key else node
    return None


def definition_of(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def value_of(node: ast.stmt, key: str) -> ast.expr | None:
    """Return the value of a key in the dictionary that a statement assigns."""
    value = getattr(node, "value", None)
    if not isinstance(value, ast.Dict):
        return None
    return next((v for k, v in zip(value.keys, value.values, strict=True) if getattr(k, "value", None) == key), None)


@cache
def code() -> str:
    """Return all code of the package except the settings module."""
    return "\n".join(file.read_text("utf-8") for file in PACKAGE.rglob("*.py") if "settings" not in file.name)


def is_read(setting: str) -> bool:
    """Return whether code outside the settings reads the setting, or the path derived from it."""
    settings_source = (PACKAGE / "kit" / "config" / "settings.py").read_text("utf-8")
    path = re.search(rf"def (\w+)\(self\) -> Path:\n.*\n\s+return self\.under_root\(self\.{setting}\)", settings_source)
    names = [setting, *([path[1]] if path else [])]
    return any(re.search(rf"(settings|config\.get\(\))\.{name}\b", code()) for name in names)


def unread() -> list[str]:
    """Return the settings that are accepted but have no effect."""
    return [name for name in settings_file.FIELDS if not is_read(name)]


def groups() -> dict[str, str]:
    """Return the heading of each setting: the comment line above its group in the class."""
    heading = ""
    by_group: dict[str, str] = {}
    for line in (PACKAGE / "kit" / "config" / "settings.py").read_text("utf-8").splitlines():
        if match := re.fullmatch(r"    # ([A-Z][\w ]+)", line):
            heading = match[1]
        elif match := re.match(r"    (\w+): ", line):
            by_group.setdefault(match[1], heading or "File")
    return by_group


def settings(_: str) -> str:
    """Return a table of settings per group."""
    import yaml

    defaults, headings, dead = Settings().values(), groups(), set(unread())
    rows: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for name, field in settings_file.FIELDS.items():
        grouped = name == settings_file.GROUP
        default = (
            "see there" if grouped else f"`{yaml.safe_dump(defaults[name], default_flow_style=True).split(chr(10))[0]}`"
        )
        text = (field.description or "") + (" It has no effect (below)." if name in dead else "")
        rows[headings[name]].append((f"`{name}`", default, cell(text)))
    return "\n".join(
        f"### {title}\n\n{table('setting', 'default', 'meaning', rows=them)}" for title, them in rows.items()
    )


def unread_settings(_: str) -> str:
    """Return a table of the settings that nothing reads. Raises ValueError if NO_EFFECT lists others."""
    names = unread()
    if set(names) != set(NO_EFFECT):
        raise ValueError(f"NO_EFFECT in kit/config/no_effect.py must have exactly the settings {', '.join(names)}")
    return table("setting", "reason", rows=[(f"`{name}`", NO_EFFECT[name]) for name in names])


def limit_settings(_: str) -> str:
    """Return the table of limits."""
    return limits.table()


def commands(_: str) -> str:
    """Return a section per command, from the parser."""
    return "\n".join(section(words, command, text) for words, command, text in walk("invokeclone", command_line(), ""))


def walk(words: str, command: argparse.ArgumentParser, text: str) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Yield every command without subcommands: its words, parser and help."""
    subcommands = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not subcommands:
        yield words, command, text
    for action in subcommands:
        help_of = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, child in action.choices.items():
            yield from walk(f"{words} {name}", child, help_of.get(name, ""))


def section(words: str, command: argparse.ArgumentParser, text: str) -> str:
    """Return the section of a command."""
    actions = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
    usage = " ".join([words, *map(to_text, sorted(actions, key=lambda action: bool(action.option_strings)))])
    rows = [(f"`{name_of(action)}`", cell(action.help or "")) for action in actions]
    arguments = "\n" + table("argument", "meaning", rows=rows) if rows else ""
    return f"### {words}\n\n{text[:1].upper()}{text[1:]}.\n\n```text\n{usage}\n```\n{arguments}"


def name_of(action: argparse.Action) -> str:
    """Return an argument as the user types it."""
    value = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return value
    return action.option_strings[-1] if action.nargs == 0 else f"{action.option_strings[-1]} {value}"


def to_text(action: argparse.Action) -> str:
    """Return an argument as in the usage line: in brackets if optional."""
    optional = not action.required if action.option_strings else action.nargs == "?"
    return f"[{name_of(action)}]" if optional else name_of(action)


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    schema: dict[str, Any] = create_app(Settings(), worker_command=None).openapi()
    return schema


def route(argument: str) -> str:
    """Return parameters and responses of `METHOD PATH`, from the OpenAPI document."""
    method, path = argument.split()
    operation = document()["paths"][path][method.lower()]
    rows = [
        (f"`{candidate['name']}`", candidate["in"], kind(candidate["schema"]), cell(candidate.get("description", "")))
        for candidate in operation.get("parameters", [])
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        required = resolve(content["schema"]).get("required", [])
        rows += [
            (
                f"`{name}`",
                "body" + (", required" if name in required else ""),
                kind(field),
                cell(field.get("description", "")),
            )
            for name, field in resolve(content["schema"]).get("properties", {}).items()
        ]
    responses = [
        f"`{status}` {kind(next(iter(candidate['content'].values()))['schema'])}"
        for status, candidate in operation["responses"].items()
        if status < "4" and "content" in candidate
    ]
    head = f"`{method} {path}`: {operation['summary']}. {(operation.get('description') or '').strip()}\n\n"
    return head + table("name", "where", "type", "meaning", rows=rows) + f"\nReturns {', '.join(responses)}.\n"


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a reference points to."""
    if "$ref" in schema:
        target: dict[str, Any] = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return target
    return schema


def kind(schema: dict[str, Any]) -> str:
    """Return a schema's type in a few words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if members := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(kind(member) for member in members))
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"][:8]) + (" …" if len(schema["enum"]) > 8 else "")
    return str(schema.get("type", "anything"))


def routes(_: str) -> str:
    """Return every route of InvokeAI's API by tag."""
    rows: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for path, operations in document()["paths"].items():
        for method in HTTP:
            if operation := operations.get(method):
                text = (operation.get("description") or operation["summary"]).strip().split("\n")[0]
                rows[operation.get("tags", ["app"])[0]].append((f"`{method.upper()} {path}`", cell(text)))
    return "\n".join(f"### {tag}\n\n{table('route', 'what it does', rows=them)}" for tag, them in sorted(rows.items()))


COMPATIBILITY: dict[str, tuple[APIRouter, ...]] = {
    "automatic1111": (automatic1111.ROUTER, automatic1111.CONTROLNET),
    "comfyui": (comfyui.routes, comfyui.api_routes),
    "gemini": (gemini.ROUTER,),
    "openai": (openai.ROUTER,),
}


def compatibility_routes(name: str) -> str:
    """Return the routes of a compatibility API, each once, under its first prefix, without those that only reject."""
    rows: dict[tuple[Any, str], tuple[str, ...]] = {}
    routes_of = [api_route for router in COMPATIBILITY[name] for api_route in router.routes]
    for api_route in sorted(routes_of, key=lambda one: "{deployment}" in getattr(one, "path", "")):
        endpoint = getattr(api_route, "endpoint", None)
        if endpoint is None or endpoint.__name__ == "unknown":
            continue
        path = str(getattr(api_route, "path", ""))
        method = "|".join(sorted(getattr(api_route, "methods", None) or ["WebSocket"]))
        rows.setdefault((endpoint, path.rpartition("/")[2]), (f"`{method} {path}`", cell(first_line(endpoint))))
    return table("route", "what it does", rows=list(rows.values()))


def first_line(documented: object) -> str:
    """Return the first line of a docstring."""
    return (documented.__doc__ or "").strip().split("\n")[0]


def node_count(_: str) -> str:
    """Return the number of node types, and of those of InvokeAI's that are missing, with their requirements."""
    registry.discover()
    have, lack = registry.nodes(), unsupported_nodes.TYPES
    needs = Counter(node_type.requirement for node_type in lack.values())
    text = f"There are {len(have)} node types. {len(lack)} of InvokeAI 6.14.2 are missing; they need: "
    return textwrap.fill(text + ", ".join(f"{name} ({count})" for name, count in needs.most_common()) + ".", 150) + "\n"


def node_types(_: str) -> str:
    """Return every node type by package."""
    registry.discover()
    by_package: defaultdict[str, list[str]] = defaultdict(list)
    for name, cls in registry.nodes().items():
        parts = cls.__module__.split(".")[1:3]
        by_package[f"invokeclone/{'/'.join(parts)}" if parts[0] != "graph" else "invokeclone/graph"].append(name)
    rows = [
        (f"`{package}`", ", ".join(f"`{name}`" for name in sorted(names)))
        for package, names in sorted(by_package.items())
    ]
    return table("package", "node types", rows=rows)


def comfyui_nodes(_: str) -> str:
    """Return the ComfyUI nodes by category, and the rejected ones."""
    by_category: defaultdict[str, list[str]] = defaultdict(list)
    for name, node_type in TYPES.items():
        rejected = node_type.build.__module__ == unsupported.__name__
        by_category["rejected" if rejected else node_type.category].append(name)
    order = sorted(by_category, key=lambda category: (category == "rejected", category))
    return table(
        "category", "nodes", rows=[(name, ", ".join(f"`{node}`" for node in by_category[name])) for name in order]
    )


def model_support(_: str) -> str:
    """Return, for each base, the recognized and loadable models, and whether it can generate images from prompts."""
    rows = []
    for base in BaseModelType:
        tags = [
            tag for tag in map(identification.tag_fields, identification.config_classes()) if tag.get("base") == base
        ]
        if not tags or base is BaseModelType.Unknown:
            continue
        loaded = [tag for tag in tags if is_loaded(tag)]
        rows.append((f"`{base.value}`", kinds(tags), kinds(loaded) or "none yet", "yes" if base in recipes() else "no"))
    return table("base", "recognized and installed", "loaded by nodes", "images from a prompt", rows=rows)


def is_loaded(tag: Mapping[str, Any]) -> bool:
    """Return whether there is a loader for records with this base, type and format."""
    try:
        loaders.find(SimpleNamespace(**{"name": "", "format": None, **tag}))
    except loaders.NoLoader:
        return False
    return True


def kinds(tags: list[Mapping[str, Any]]) -> str:
    """Return types with their formats."""
    kind_names: defaultdict[str, list[str]] = defaultdict(list)
    for tag in tags:
        name = tag["format"].value if "format" in tag else "any format"
        if name not in (formats := kind_names[tag["type"].value]):
            formats.append(name)
    return "; ".join(f"{name}: {', '.join(sorted(formats))}" for name, formats in sorted(kind_names.items()))


def unsupported_models(_: str) -> str:
    """Return the kinds of model that are recognized but not supported."""
    return "\n".join(sorted(f"- {kind.name}" for kind in identification.list_unsupported_kinds()))


PARTS: dict[str, Callable[[str], str]] = {
    part.__name__: part
    for part in (
        snippet, settings, unread_settings, limit_settings, commands, route, routes, compatibility_routes, node_count,
        node_types, comfyui_nodes, model_support, unsupported_models,
    )
}  # fmt: skip


def render(text: str) -> str:
    """Return a document with its generated parts updated."""
    return PART.sub(lambda part: part[1] + PARTS[part[2]](part[3] or "").rstrip("\n") + "\n" + part[5], text)


def stale() -> Iterator[tuple[Path, str]]:
    """Yield each stale file with its new text."""
    expected = {EXAMPLE: settings_file.example()}
    expected |= {page: render(page.read_text(encoding="utf-8")) for page in documents()}
    yield from ((page, text) for page, text in expected.items() if page.read_text(encoding="utf-8") != text)


def main() -> int:
    """Write or check the documents."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    check = options.parse_args().check
    count = 0
    for page, text in stale():
        count += 1
        print(f"{'stale' if check else 'written'}: {page.relative_to(ROOT)}")
        if not check:
            page.write_text(text, encoding="utf-8")
    return 1 if check and count else 0


if __name__ == "__main__":
    sys.exit(main())
