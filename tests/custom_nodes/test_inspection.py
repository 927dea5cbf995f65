"""The process that describes packs is started anew after one that ended it, on both event loops."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from invokeclone.custom_nodes.inspection import inspect

DESCRIBES = """
import json, os, sys
for name in sys.argv[2:]:
    print(json.dumps({"begins": name}), flush=True)
    if name == "ends":
        os.kill(os.getpid(), 9)
    print(json.dumps({"name": name, "error": None, "missing": False, "nodes": [], "outputs": []}), flush=True)
"""


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_pack_that_exits_the_process_does_not_affect_others(
    new_loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    command = (sys.executable, "-S", "-c", DESCRIBES)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        inspections = runner.run(inspect(tmp_path, ["one", "ends", "two"], timeout_s=30, command=command))
    assert {name: inspected.error for name, inspected in inspections.items()} == {
        "one": None,
        "ends": "importing it ended the process",
        "two": None,
    }
