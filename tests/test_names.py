"""Names: a public class is defined once in the package, so that its name means one thing."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "invokeclone"


def test_a_public_class_name_is_defined_once() -> None:
    defined: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined[node.name].append(str(file.relative_to(PACKAGE)))
    assert len(defined) > 1000
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}
