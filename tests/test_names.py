"""Names say what a thing is: nouns of the field and verbs, one public class per name. CONTRIBUTING.md has the rules."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "invokeclone"

POINTING = frozenset(
    [
        "found",
        "wanted",
        "asked",
        "known",
        "chosen",
        "kept",
        "made",
        "given",
        "told",
        "one",
        "each",
        "place",
        "stated",
        "where",
        "meant",
        "others",
        "both",
        "seen",
        "done",
        "gone",
        "here",
        "heard",
        "said",
        "shown",
        "held",
        "reached",
        "ours",
        "theirs",
        "mine",
        "own",
        "beside",
        "least",
        "most",
        "few",
        "late",
        "more",
        "fitting",
        "fits",
    ]
)
"""Words that point at something instead of naming it; not names of variables and parameters."""

IRREGULAR_PARTICIPLES = frozenset(
    [
        "told",
        "kept",
        "made",
        "drawn",
        "written",
        "given",
        "meant",
        "sent",
        "shown",
        "found",
        "known",
        "held",
        "gone",
        "lost",
        "begun",
        "chosen",
        "said",
        "put",
    ]
)
NO_PARTICIPLES = frozenset({"need", "feed", "seed", "embed", "speed"})

REPLACED = {
    "dialect": "compatibility API",
    "hears": "on_event",
    "mend": "fix",
    "picture": "image",
    "pictures": "images",
    "room": "package; for socket.io, `room` below",
    "sibling": "counterpart",
    "standing": "account status",
    "strikes": "failed checks",
    "tells": "notify, emit",
    "twin": "counterpart",
    "verdict": "decision",
    "wanted": "request",
    "chosen": "resolved, selected",
    "usual": "defaults",
    "enlarge": "upscale, hires fix",
    "people": "users, sockets",
}
"""Words that no identifier of the package contains, and what to write."""

EXCEPTIONS = {
    ("models/install/journal.py", "stated"): "a column of the table model_installs",
    ("components/language_models/pipeline.py", "put"): "a method that transformers calls",
    ("server/sockets.py", "room"): "socket.io's word",
    ("server/sockets.py", "queue_room"): "socket.io's word",
    ("server/sockets.py", "user_room"): "socket.io's word",
    ("server/sockets.py", "bulk_room"): "socket.io's word",
}
"""Module and name, and why the name stays."""
IN_PACKAGE = {"dialect": "kit/sql/"}
"""Words that one package may use: a dialect of SQL is SQLAlchemy's word."""


class Name(NamedTuple):
    """A name that a module defines."""

    module: str
    line: int
    name: str
    kind: str


def definitions(file: Path) -> Iterator[Name]:
    """Yield the variables, parameters, attributes, functions and classes that a module defines."""
    module = str(file.relative_to(PACKAGE)) if file.is_relative_to(PACKAGE) else str(file.relative_to(ROOT))
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield Name(module, node.lineno, name, "variable")
            case ast.arg(arg=name):
                yield Name(module, node.lineno, name, "variable")
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield Name(module, node.lineno, name, "attribute")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield Name(module, node.lineno, name, "property" if is_property(node) else "function")
            case ast.ClassDef(name=name):
                yield Name(module, node.lineno, name, "class")


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a decorator makes the function a property or a validator."""
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any("property" in decorator or "validator" in decorator for decorator in decorators)


def words(name: str) -> list[str]:
    """Return the words of an identifier in lower case."""
    spaced = "".join(
        f"_{letter}" if letter.isupper() and before.islower() else letter
        for before, letter in zip(" " + name, name, strict=False)
    )
    return [word for word in spaced.lower().split("_") if word]


def is_participle(name: str) -> bool:
    """Return whether a function's name begins with a participle."""
    word = (words(name) or [""])[0]
    return word in IRREGULAR_PARTICIPLES or (word.endswith("ed") and word not in NO_PARTICIPLES)


def problem_of(name: Name) -> str | None:
    """Return why a name is not to be used, if so."""
    if (name.module, name.name) in EXCEPTIONS or name.name.startswith("__"):
        return None
    if name.kind == "variable" and name.name.strip("_") in POINTING:
        return "points at a thing: name it by a noun"
    if name.kind == "function" and is_participle(name.name):
        return "is a participle: name a function by what it does"
    replaced = [
        word
        for word in words(name.name)
        if word in REPLACED and not (word in IN_PACKAGE and name.module.startswith(IN_PACKAGE[word]))
    ]
    return f"contains {replaced[0]!r}: write {REPLACED[replaced[0]]}" if replaced else None


def problems(folder: Path) -> list[str]:
    """Return a line for each name in a folder that is not to be used."""
    return [
        f"{name.module}:{name.line}: {name.name} {problem}"
        for file in sorted(folder.rglob("*.py"))
        for name in definitions(file)
        if (problem := problem_of(name)) is not None
    ]


def test_a_public_class_name_is_defined_once() -> None:
    defined: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined[node.name].append(str(file.relative_to(PACKAGE)))
    assert len(defined) > 1000
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}


def test_names_of_the_package() -> None:
    assert problems(PACKAGE) == []


def test_names_of_modules() -> None:
    modules = [file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py")]
    bad = [path for path in modules for word in words(path.stem) if word in REPLACED or word in POINTING]
    assert bad == []


def test_every_exception_is_needed() -> None:
    names = {(name.module, name.name) for file in PACKAGE.rglob("*.py") for name in definitions(file)}
    assert set(EXCEPTIONS) - names == set()


def test_each_rule_detects_a_violation() -> None:
    """Each rule has a name that breaks it."""
    cases = {
        Name("x.py", 1, "found", "variable"): "points",
        Name("x.py", 1, "_kept", "variable"): "points",
        Name("x.py", 1, "resized", "function"): "participle",
        Name("x.py", 1, "told_off", "function"): "participle",
        Name("x.py", 1, "PictureStore", "class"): "'picture'",
        Name("x.py", 1, "queue_room", "function"): "'room'",
    }
    for case, problem in cases.items():
        assert problem in (problem_of(case) or "")
    for name in ("seed_image", "cached_latents", "embed", "find_found_models"):
        assert problem_of(Name("x.py", 1, name, "variable")) is None
