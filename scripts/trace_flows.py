"""Trace five flows through a real server and its worker: which packages call which, upward calls, returns; draw them.

Usage: .venv/bin/python scripts/trace_flows.py [--tree DIR] [--draw FILE.md] [--calls FILE.txt]

The flows are: a batch is enqueued; a claimed item becomes a saved image; an image is uploaded; a model is installed from a
file; a request to OpenAI's API is answered. Each runs once for warming up and is traced the second time. `--tree` is the
checkout whose `invokeclone` is run (default: the one that this file is in), by the same interpreter. `--draw` puts today's
sequence diagrams between the marks in a page; `--calls` writes every call between packages, one a line.

What is counted, for each process by itself:

- A call: a function of one module of `invokeclone` calls a function of another one. The caller is the nearest frame of
  `invokeclone` on the stack; for what begins a task or runs in a thread, it is who started the task or handed the work over.
  To go on with a coroutine after an `await` is no call; comprehensions and class bodies are none either.
- An upward call: the callee's package is above the caller's in the layers of the tree's pyproject.toml.
- A return: a call into a package that the flow was in before and has left: it is neither the caller's nor further up the
  stack. Calls that a package makes in a row to the same one are one; calls to kit, tables and version are passed over.
- Left out: what the processes also do when nothing is asked of them (heartbeats, a worker that looks for items), by the whole
  path of functions; and the requests that this script makes in order to wait.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
BATCH = ROOT / "tests" / "whole" / "text_to_image.json"
FLOWS = {
    "enqueue": "Enqueue a batch",
    "item": "A claimed item becomes a saved image",
    "upload": "Upload an image",
    "install": "Install a model from a file",
    "openai": "A request to OpenAI's API",
}
HEADER = "x-traced-flow"
PATIENCE_S = 600
SHARED = {"kit", "tables", "version"}
"""Packages without a domain, which every other one calls as it calls the standard library: no returns are counted there."""
IDLE_S = 4.0
SETTLING_S = 0.7
BEGIN, END = "<!-- diagrams: written by scripts/trace_flows.py --draw -->", "<!-- end of diagrams -->"

TRACER = Path(__file__).with_name("flow_tracer.py")


class Call(NamedTuple):
    """A call between two modules of `invokeclone`."""

    at: int
    """Monotonic clock, in ns."""
    flow: str
    """The flow that the request says it belongs to; ".": no request's; "-": a request that only waits."""
    caller: str
    callee: str
    function: str
    path: str
    above: bool
    """Whether the callee's package is on the stack already."""
    process: str

    @property
    def packages(self) -> tuple[str, str]:
        return self.caller.partition(".")[0], self.callee.partition(".")[0]


@dataclass
class Window:
    """When a flow was traced, in ns of the monotonic clock."""

    start: int = field(default_factory=time.monotonic_ns)
    end: int = 0

    def close(self) -> None:
        self.end = time.monotonic_ns()


class Figures(NamedTuple):
    """What a flow costs in calls."""

    modules: int
    packages: int
    calls: int
    upward: int
    returns: int


class Traced:
    """A server with its worker on a scratch root, each process traced."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.traces = folder / "traces"
        self.traces.mkdir()
        hook = folder / "hook"
        hook.mkdir()
        shutil.copyfile(TRACER, hook / "sitecustomize.py")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)
        self.log = folder / "server.log"
        environment = os.environ | {
            "PYTHONPATH": f"{hook}{os.pathsep}{tree}",
            "TRACED_PACKAGE": str(tree / "invokeclone"),
            "TRACE_TO": str(self.traces),
            "OMP_NUM_THREADS": "1",
            "INVOKEAI_DEVICE": "cpu",
            "INVOKEAI_PRECISION": "float32",
        }
        command = [sys.executable, "-m", "invokeclone", "serve", "--root", str(folder / "root"), "--port", str(port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)

    def wait(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if result := condition():
                    return result
            time.sleep(0.1)
        raise SystemExit(f"the server did not get there:\n{self.log.read_text()[-4000:]}")

    def get(self, address: str) -> Any:
        return self.client.get(address).raise_for_status().json()

    def send(self, flow: str, address: str, **content: Any) -> Any:
        return self.client.post(address, headers={HEADER: flow}, **content).raise_for_status().json()

    def stop(self) -> list[Call]:
        """End the server; return every call there was."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return sorted(itertools.chain.from_iterable(map(_read, self.traces.iterdir())))


def _read(file: Path) -> Iterator[Call]:
    lines = file.read_text().splitlines()
    process = "worker" if "invokeclone.worker" in lines[0] else "server" if " serve " in lines[0] else "helper"
    for line in lines[1:]:
        values = line.split("\t")
        if len(values) == 7:  # the last line may have been cut off
            at, flow, caller, callee, function, path, above = values
            yield Call(int(at), flow, caller, callee, function, path, above == "1", process)


# The five flows


def _enqueue(server: Traced, number: int) -> dict[str, Window]:
    """Enqueue, then wait for the item: two flows."""
    body: dict[str, Any] = json.loads(BATCH.read_text())
    model = next(model for model in server.get("/api/v2/models/")["models"] if model["type"] == "main")
    nodes = body["batch"]["graph"]["nodes"]
    identifier = {name: model[name] for name in ("key", "hash", "name", "base", "type")}
    nodes["sd1_model_loader"]["model"] = nodes["core_metadata"]["model"] = identifier
    nodes["noise"].update(width=128, height=128)
    nodes["denoise_latents"].update(steps=2)
    body["batch"]["data"] = [
        [{"node_path": "seed", "field_name": "value", "items": [number]}],
        [{"node_path": "positive_prompt", "field_name": "value", "items": [f"a red circle, number {number}"]}],
    ]
    enqueue, item = Window(), Window()
    (item_id,) = server.send("enqueue", "/api/v1/queue/default/enqueue_batch", json=body)["item_ids"]
    enqueue.close()

    def poll_item() -> str | None:
        status = server.get(f"/api/v1/queue/default/i/{item_id}")["status"]
        return None if status in ("pending", "in_progress") else status

    if (status := server.wait(poll_item)) != "completed":
        raise SystemExit(f"the item is {status}:\n{server.log.read_text()[-4000:]}")
    time.sleep(SETTLING_S)
    item.close()
    return {"enqueue": enqueue, "item": item}


def _upload(server: Traced, number: int) -> dict[str, Window]:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (number, 90, 160)).save(file, "PNG")
    window = Window()
    address = "/api/v1/images/upload?image_category=user&is_intermediate=false"
    server.send("upload", address, files={"file": ("image.png", file.getvalue(), "image/png")})
    window.close()
    return {"upload": window}


def _install(server: Traced, number: int, folder: Path) -> dict[str, Window]:
    """Install a LoRA of one layer."""
    path = folder / f"lora {number}.safetensors"
    layer = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    side = np.full((4, 768), number, np.float32)
    save_file({f"{layer}.lora_down.weight": side, f"{layer}.lora_up.weight": side.T.copy()}, path)
    window = Window()
    job = server.send("install", "/api/v2/models/install", params={"source": str(path)}, json={})

    def poll_job() -> str | None:
        status = server.get(f"/api/v2/models/install/{job['id']}")["status"]
        return status if status in ("completed", "error", "cancelled") else None

    if (status := server.wait(poll_job)) != "completed":
        raise SystemExit(f"the installation is {status}:\n{server.log.read_text()[-4000:]}")
    time.sleep(SETTLING_S)
    window.close()
    return {"install": window}


def _openai(server: Traced, number: int) -> dict[str, Window]:
    window = Window()
    body = {"prompt": f"a blue square, number {number}", "size": "128x128", "steps": 2, "seed": number}
    server.send("openai", "/v1/images/generations", json=body | {"response_format": "b64_json"})
    window.close()
    time.sleep(SETTLING_S)
    return {"openai": window}


def trace_flow(tree: Path) -> dict[str, list[Call]]:
    """Run the flows and return the calls of each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Traced(tree, folder)
        try:
            server.wait(lambda: server.client.get("/api/v1/app/version").status_code == 200)
            server.wait(lambda: any(model["type"] == "main" for model in server.get("/api/v2/models/")["models"]))
            windows: dict[str, Window] = {}
            for number in (1, 2):
                if number == 2:
                    time.sleep(2 * SETTLING_S)
                    idle = Window()
                    time.sleep(IDLE_S)
                    idle.close()
                windows |= _enqueue(server, number) | _upload(server, number)
                windows |= _install(server, number, folder) | _openai(server, number)
        finally:
            calls = server.stop()
    background = {call.path for call in calls if idle.start <= call.at < idle.end and call.flow == "."}
    return {
        flow: [
            call
            for call in calls
            if windows[flow].start <= call.at < windows[flow].end
            and _belongs(call, flow)
            and call.path not in background
        ]
        for flow in FLOWS
    }


def _belongs(call: Call, flow: str) -> bool:
    """Tell whether a call in a flow's window is the flow's: the item's are all that its request did not make."""
    match flow:
        case "enqueue" | "upload":
            return call.flow == flow
        case "item":
            return call.flow not in ("-", "enqueue")
        case _:
            return call.flow != "-"


# Figures


def ranks(tree: Path) -> dict[str, int]:
    """Return each package's layer, 0 at the top."""
    contracts = tomllib.loads((tree / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(
        layer_package["layers"]
        for layer_package in contracts
        if layer_package["type"] == "layers" and layer_package["containers"] == ["invokeclone"]
    )
    return {package.strip(" ()"): rank for rank, layer in enumerate(layers) for package in re.split(r"[|:]", layer)} | {
        "__main__": 0
    }


def is_upward(call: Call, rank: dict[str, int]) -> bool:
    caller, callee = call.packages
    return rank[callee] < rank[caller]


def between_packages(calls: list[Call]) -> list[list[Call]]:
    """Return the calls between packages of each process, in order."""
    crossing = [call for call in calls if len(set(call.packages)) == 2]
    return [
        [call for call in crossing if call.process == entry] for entry in sorted({call.process for call in crossing})
    ]


def collapse(calls: list[Call]) -> list[tuple[Call, int]]:
    """Return each call that goes elsewhere than the one that its caller made before, and how many follow it to the same package."""
    runs: list[list[Call]] = []
    last: dict[str, list[Call]] = {}
    for call in calls:
        caller, callee = call.packages
        if caller in last and last[caller][0].packages[1] == callee:
            last[caller].append(call)
        else:
            runs.append([call])
            last[caller] = runs[-1]
    return [(run[0], len(run)) for run in runs]


def returns(calls: list[Call]) -> list[Call]:
    entered: set[str] = set()
    count = []
    for call, _ in collapse([call for call in calls if call.packages[1] not in SHARED]):
        caller, callee = call.packages
        entered.add(caller)
        if callee in entered and not call.above:
            count.append(call)
        entered.add(callee)
    return count


def figures(calls: list[Call], rank: dict[str, int]) -> Figures:
    modules = {(call.process, name) for call in calls for name in (call.caller, call.callee)}
    packages = {(process, name.partition(".")[0]) for process, name in modules}
    processes = between_packages(calls)
    crossing = list(itertools.chain.from_iterable(processes))
    upward = sum(is_upward(call, rank) for call in crossing)
    return Figures(len(modules), len(packages), len(crossing), upward, sum(len(returns(entry)) for entry in processes))


def table(flows: dict[str, list[Call]], rank: dict[str, int]) -> str:
    rows = [
        "| flow | modules | packages | calls between packages | upward calls | returns |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for flow, calls in flows.items():
        rows.append(f"| {FLOWS[flow]} | {' | '.join(map(str, figures(calls, rank)))} |")
    return "\n".join(rows)


# Drawing


class Arrow(NamedTuple):
    """Calls of one package by another, as they are drawn."""

    caller: str
    callee: str
    upward: bool
    modules: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, str]:
        return self.caller, self.callee

    @property
    def line(self) -> str:
        label = ", ".join(self.modules[:3]) + (", …" if len(self.modules) > 3 else "")
        return f"{self.caller}{'-->>' if self.upward else '->>'}{self.callee}: {label}"


def arrows(calls: list[Call], rank: dict[str, int]) -> list[Arrow]:
    """Return what is drawn of a process: calls to shared packages are left out, what these call themselves is not."""
    result: list[Arrow] = []
    last: dict[str, int] = {}
    for call in calls:
        caller, callee = call.packages
        if callee in SHARED:
            continue
        module = call.callee.partition(".")[2] or callee
        at = last.get(caller)
        if at is not None and result[at].callee == callee:
            modules = result[at].modules
            result[at] = result[at]._replace(modules=modules if module in modules else (*modules, module))
        else:
            last[caller] = len(result)
            result.append(Arrow(caller, callee, is_upward(call, rank), (module,)))
    return result


def collapse_loops(drawn: list[Arrow]) -> Iterator[str]:
    """Yield the lines of a diagram, with what repeats at once in a loop."""
    position = 0
    while position < len(drawn):
        times, period = max(
            ((_repeats(drawn, position, period), period) for period in range(1, 13)),
            key=lambda result: (result[0] > 1) * result[0] * result[1],
        )
        if times < 2:
            yield f"    {drawn[position].line}"
            position += 1
            continue
        yield f"    loop {times} times"
        for arrow in drawn[position : position + period]:
            yield f"        {arrow.line}"
        yield "    end"
        position += times * period


def _repeats(drawn: list[Arrow], position: int, period: int) -> int:
    """Return how many times in a row what is at `position` comes, `period` arrows long."""
    pattern = [arrow.ends for arrow in drawn[position : position + period]]
    times = 1
    while [arrow.ends for arrow in drawn[position + times * period : position + (times + 1) * period]] == pattern:
        times += 1
    return times


def diagrams(flows: dict[str, list[Call]], rank: dict[str, int]) -> str:
    """Return the page's part with a diagram for each process of each flow."""
    parts = [BEGIN]
    for flow, calls in flows.items():
        parts.append(f"### {FLOWS[flow]}")
        for process in between_packages(calls):
            drawn = arrows(process, rank)
            packages = sorted({end for arrow in drawn for end in arrow.ends}, key=lambda name: (rank[name], name))
            lines = [f"    participant {package}" for package in packages] + list(collapse_loops(drawn))
            parts.append(f"In the {process[0].process}:\n\n```mermaid\nsequenceDiagram\n" + "\n".join(lines) + "\n```")
    return "\n\n".join([*parts, END])


def draw(page: Path, flows: dict[str, list[Call]], rank: dict[str, int]) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + diagrams(flows, rank) + rest.partition(END)[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to trace")
    parser.add_argument("--draw", type=Path, help="the page whose diagrams to write")
    parser.add_argument("--calls", type=Path, help="where to write every call between packages")
    arguments = parser.parse_args()
    tree = arguments.tree.resolve()
    rank = ranks(tree)
    flows = trace_flow(tree)
    print(table(flows, rank))
    for flow, calls in flows.items():
        rises = Counter(
            f"{call.caller} → {call.callee}.{call.function}"
            for process in between_packages(calls)
            for call in process
            if is_upward(call, rank)
        )
        print(f"\n{FLOWS[flow]}: upward calls")
        for text, number in rises.most_common():
            print(f"{number:5} {text}")
    if arguments.draw:
        draw(arguments.draw, flows, rank)
    if arguments.calls:
        with arguments.calls.open("w") as file:
            for flow, calls in flows.items():
                returned = {id(call) for process in between_packages(calls) for call in returns(process)}
                for call in itertools.chain.from_iterable(between_packages(calls)):
                    sign = "↑" if is_upward(call, rank) else "↩" if id(call) in returned else " "
                    print(f"{flow} {call.process} {sign} {call.caller} → {call.callee}.{call.function}", file=file)


if __name__ == "__main__":
    main()
