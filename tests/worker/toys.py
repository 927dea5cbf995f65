"""Nodes without a model for the worker's tests, and a worker process that knows them: `toys.py --device cpu`."""

import contextlib
import re
import sys
import time
from pathlib import Path
from typing import Any

from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import InputField, OutputField, WithBoard, WithMetadata
from invokeclone.graph.vocabulary.hints import Input


@invocation_output("toy_number_output")
class ToyNumberOutput(BaseInvocationOutput):
    value: int = OutputField(description="A number")


@invocation_output("toy_name_output")
class ToyNameOutput(BaseInvocationOutput):
    name: str = OutputField(description="A name")


@invocation("toy_number", version="1.0.0")
class ToyNumberInvocation(BaseInvocation):
    """Gives a number."""

    value: int = InputField(default=0, description="A number")

    def invoke(self, context: Any) -> ToyNumberOutput:
        return ToyNumberOutput(value=self.value)


@invocation("toy_add", version="1.0.0")
class ToyAddInvocation(BaseInvocation):
    """Adds, and writes a line to stdout as careless libraries do."""

    a: int = InputField(default=0, description="One number")
    b: int = InputField(default=0, description="Another")

    def invoke(self, context: Any) -> ToyNumberOutput:
        sys.stdout.write("printed by a node\n")
        sys.stdout.flush()
        return ToyNumberOutput(value=self.a + self.b)


@invocation("toy_bounded", version="1.0.0")
class ToyBoundedInvocation(BaseInvocation):
    """Takes a small number."""

    value: int = InputField(default=0, le=9, description="At most nine")

    def invoke(self, context: Any) -> ToyNumberOutput:
        return ToyNumberOutput(value=self.value)


@invocation("toy_needy", version="1.0.0")
class ToyNeedyInvocation(BaseInvocation):
    """Needs a connection."""

    value: int = InputField(input=Input.Connection, description="From an edge")

    def invoke(self, context: Any) -> ToyNumberOutput:
        return ToyNumberOutput(value=self.value)


@invocation("toy_fail", version="1.0.0")
class ToyFailInvocation(BaseInvocation):
    """Fails in the way asked for."""

    how: str = InputField(default="ValueError", description="Which error")

    def invoke(self, context: Any) -> ToyNumberOutput:
        if self.how == "exit":
            sys.exit(3)
        raise ValueError("toys break")


@invocation("toy_steps", version="1.0.0")
class ToyStepsInvocation(BaseInvocation):
    """Tells progress, which is a checkpoint, until it is canceled; `heed` false: tells it once and never looks again."""

    seconds: float = InputField(default=60.0, description="At most so long")
    heed: bool = InputField(default=True, description="Pass checkpoints")

    def invoke(self, context: Any) -> ToyNumberOutput:
        context.util.signal_progress("Stepping", 0.5)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if self.heed:
                context.util.signal_progress("Stepping", 0.5)
            time.sleep(0.02)
        return ToyNumberOutput(value=1)


@invocation("toy_stuck", version="1.0.0")
class ToyStuckInvocation(BaseInvocation):
    """Never comes back: sleeps, computes while it holds the interpreter, or goes on after it was told to stop."""

    how: str = InputField(default="sleep", description="sleep, hold or swallow")
    marker: str = InputField(description="File that says that it runs")

    def invoke(self, context: Any) -> ToyNumberOutput:
        Path(self.marker).touch()
        if self.how == "sleep":
            time.sleep(10**5)
        if self.how == "hold":
            re.match(r"(a+)+$", "a" * 64 + "b")
        while True:
            with contextlib.suppress(Exception):
                context.util.signal_progress("Stuck", 0.5)
            time.sleep(0.05)


@invocation("toy_context", version="1.0.0", use_cache=False)
class ToyContextInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Hands the context to the test."""

    value: int = InputField(default=0, description="A number")

    def invoke(self, context: Any) -> ToyNumberOutput:
        SEEN.append(context)
        if CALL:
            CALL[-1](context)
        return ToyNumberOutput(value=self.value)


SEEN: list[Any] = []
CALL: list[Any] = []

if __name__ == "__main__":
    sys.modules["toys"] = sys.modules["__main__"]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from invokeclone.worker import runner
    from invokeclone.worker.__main__ import main

    runner.IMPORT_FREE |= {__name__}  # toys need not wait for torch
    main()
