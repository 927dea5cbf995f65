"""Entry point `python -m invokeclone.custom_nodes.describe_process FOLDER NAME…`: describes the nodes of packs.

Imports each pack and prints two lines of JSON: one before the import, one with the result. The parent kills the process
on a timeout.
"""

import json
import os
import sys
from pathlib import Path

from invokeclone.custom_nodes import describe, loading
from invokeclone.graph.invocations import registry
from invokeclone.kit.process.processes import end_with_parent


def main() -> None:
    """Import and describe each pack; the packs' own output is redirected to stderr."""
    end_with_parent()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    registry.discover()
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        print(json.dumps({"begins": name}), file=lines, flush=True)
        print(json.dumps({"name": name, **_describe(folder / name)}), file=lines, flush=True)
    lines.flush()
    os._exit(0)  # a pack's threads must not keep the process alive


def _describe(folder: Path) -> describe.Description:
    try:
        loading.load(folder)
        return {**describe.pack(folder.name), "error": None, "missing": False}
    except loading.PackError as error:
        return {"nodes": [], "outputs": [], "error": str(error), "missing": error.missing}
    except Exception as error:  # noqa: BLE001  (a pack may define classes that cannot be described)
        return {"nodes": [], "outputs": [], "error": f"{type(error).__name__}: {error}", "missing": False}


if __name__ == "__main__":
    main()
