"""Checks of node outputs: size limits, and numbers that a session can store as JSON."""

import math
from typing import Any

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, NodeError
from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.json_text import LARGEST, SMALLEST


class OutputOverLimit(NodeError):
    """A node's output exceeds a limit."""


class OutputNotStorable(NodeError):
    """A node's output has a number that JSON cannot represent."""


def check_output(output: BaseInvocationOutput, output_json: bytes, limits: Limits) -> None:
    """Check an output and its JSON; raises OutputOverLimit, OutputNotStorable."""
    if len(output_json) > limits.node_output_mib * MIB:
        message = f"the output is over {limits.node_output_mib} MiB (setting limits.node_output_mib)"
        raise OutputOverLimit(message)
    for name, value in output.__dict__.items():
        if isinstance(value, list):
            check_count(len(value), limits, name)
            for entry in value:
                _check_number(name, entry)
        else:
            _check_number(name, value)


def check_count(count: int, limits: Limits, name: str) -> None:
    """Raise OutputOverLimit for a list with too many values."""
    if count > limits.collection_items:
        message = f"{name} has {count} values, more than {limits.collection_items} (setting limits.collection_items)"
        raise OutputOverLimit(message)


def _check_number(name: str, value: Any) -> None:
    if type(value) is float and not math.isfinite(value):
        message = f"{name} is {value}, which cannot be stored: use smaller operands"
        raise OutputNotStorable(message)
    if type(value) is int and not SMALLEST <= value <= LARGEST:
        message = f"{name} is over 64 bits: use smaller operands"
        raise OutputNotStorable(message)
