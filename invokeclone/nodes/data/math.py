"""Nodes for arithmetic on numbers."""

import math
import random
from collections.abc import Callable
from typing import Literal

from pydantic import ValidationInfo, field_validator

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import FloatOutput, IntegerOutput
from invokeclone.graph.vocabulary.fields import InputField

_RANDOM = random.SystemRandom()


@invocation(
    "add",
    title="Add Integers",
    tags=["math", "add"],
    category="math",
    version="1.0.1",
)
class AddInvocation(BaseInvocation):
    """Add two integers."""

    a: int = InputField(default=0, description="The first number")
    b: int = InputField(default=0, description="The second number")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Return a + b."""
        return IntegerOutput(value=self.a + self.b)


@invocation(
    "sub",
    title="Subtract Integers",
    tags=["math", "subtract"],
    category="math",
    version="1.0.1",
)
class SubtractInvocation(BaseInvocation):
    """Subtract an integer from another."""

    a: int = InputField(default=0, description="The first number")
    b: int = InputField(default=0, description="The second number")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Return a - b."""
        return IntegerOutput(value=self.a - self.b)


@invocation(
    "mul",
    title="Multiply Integers",
    tags=["math", "multiply"],
    category="math",
    version="1.0.1",
)
class MultiplyInvocation(BaseInvocation):
    """Multiply two integers."""

    a: int = InputField(default=0, description="The first number")
    b: int = InputField(default=0, description="The second number")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Return a * b."""
        return IntegerOutput(value=self.a * self.b)


@invocation(
    "div",
    title="Divide Integers",
    tags=["math", "divide"],
    category="math",
    version="1.0.1",
)
class DivideInvocation(BaseInvocation):
    """Divide an integer by another."""

    a: int = InputField(default=0, description="The first number")
    b: int = InputField(default=0, description="The second number")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Return a / b, truncated. Raises ZeroDivisionError."""
        return IntegerOutput(value=int(self.a / self.b))


@invocation(
    "rand_int",
    title="Random Integer",
    tags=["math", "random"],
    category="math",
    version="1.0.1",
    use_cache=False,
)
class RandomIntInvocation(BaseInvocation):
    """Generate a random integer."""

    low: int = InputField(default=0, description="Lowest value, inclusive")
    high: int = InputField(default=2147483647, description="Highest value, exclusive")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Return an integer from low up to, but not including, high."""
        return IntegerOutput(value=_RANDOM.randrange(self.low, self.high))


@invocation(
    "rand_float",
    title="Random Float",
    tags=["math", "float", "random"],
    category="math",
    version="1.0.1",
    use_cache=False,
)
class RandomFloatInvocation(BaseInvocation):
    """Generate a random float."""

    low: float = InputField(default=0.0, description="Lowest value")
    high: float = InputField(default=1.0, description="Highest value")
    decimals: int = InputField(default=2, description="Number of decimal places")

    def invoke(self, context: InvocationContext) -> FloatOutput:
        """Return a float between low and high, rounded."""
        return FloatOutput(value=round(_RANDOM.uniform(self.low, self.high), self.decimals))


_ROUNDINGS: dict[str, Callable[[float], int]] = {
    "Nearest": round,
    "Floor": math.floor,
    "Ceiling": math.ceil,
    "Truncate": math.trunc,
}


@invocation(
    "float_to_int",
    title="Float To Integer",
    tags=["math", "round", "integer", "float", "convert"],
    category="math",
    version="1.0.1",
)
class FloatToIntegerInvocation(BaseInvocation):
    """Round a float to an integer, or to a multiple of an integer."""

    value: float = InputField(default=0, description="The float")
    multiple: int = InputField(default=1, ge=1, description="The result is a multiple of this", title="Multiple of")
    method: Literal["Nearest", "Floor", "Ceiling", "Truncate"] = InputField(
        default="Nearest", description="How to round; halves are rounded to even"
    )

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Return the rounded multiple."""
        return IntegerOutput(value=_ROUNDINGS[self.method](self.value / self.multiple) * self.multiple)


@invocation(
    "round_float",
    title="Round Float",
    tags=["math", "round"],
    category="math",
    version="1.0.1",
)
class RoundInvocation(BaseInvocation):
    """Round a float."""

    value: float = InputField(default=0, description="The float")
    decimals: int = InputField(default=0, description="Number of decimal places")

    def invoke(self, context: InvocationContext) -> FloatOutput:
        """Return the rounded float."""
        return FloatOutput(value=round(self.value, self.decimals))


INTEGER_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "ADD": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "MUL": lambda a, b: a * b,
    "DIV": lambda a, b: int(a / b),
    "EXP": lambda a, b: a**b,
    "MOD": lambda a, b: a % b,
    "ABS": lambda a, _: abs(a),
    "MIN": min,
    "MAX": max,
}


MAX_BITS = 256
"""Maximum bits of an integer power before it is refused; a session can only store 64-bit results."""


def check_integers(operation: str | None, b: int | None) -> None:
    """Raise ValueError for operands that an operation does not accept."""
    if operation in ("DIV", "MOD") and b == 0:
        message = "Cannot divide by zero"
        raise ValueError(message)
    if operation == "EXP" and b is not None and b < 0:
        message = "Result of exponentiation is not an integer"
        raise ValueError(message)


@invocation(
    "integer_math",
    title="Integer Math",
    tags=[
        "math",
        "integer",
        "add",
        "subtract",
        "multiply",
        "divide",
        "modulus",
        "power",
        "absolute value",
        "min",
        "max",
    ],
    category="math",
    version="1.0.1",
)
class IntegerMathInvocation(BaseInvocation):
    """Apply an operation to two integers."""

    operation: Literal["ADD", "SUB", "MUL", "DIV", "EXP", "MOD", "ABS", "MIN", "MAX"] = InputField(
        default="ADD",
        description="The operation",
        ui_choice_labels={
            "ABS": "Absolute Value of A",
            "ADD": "Add A+B",
            "DIV": "Divide A/B",
            "EXP": "Exponentiate A^B",
            "MAX": "Maximum(A,B)",
            "MIN": "Minimum(A,B)",
            "MOD": "Modulus A%B",
            "MUL": "Multiply A*B",
            "SUB": "Subtract A-B",
        },
    )
    a: int = InputField(default=1, description="The first number")
    b: int = InputField(default=1, description="The second number")

    @field_validator("operation", "b")
    @classmethod
    def _check(cls, value: int | str, info: ValidationInfo) -> int | str:
        operands = {**info.data, str(info.field_name): value}
        check_integers(operands.get("operation"), operands.get("b"))
        return value

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Return the result. Raises ValueError for a power far over 64 bits, before it is computed."""
        if self.operation == "EXP" and abs(self.a) > 1 and self.b * self.a.bit_length() > MAX_BITS:
            message = f"{self.a} to the power of {self.b} exceeds 64 bits"
            raise ValueError(message)
        return IntegerOutput(value=INTEGER_OPERATIONS[self.operation](self.a, self.b))


FLOAT_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "ADD": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "MUL": lambda a, b: a * b,
    "DIV": lambda a, b: a / b,
    "EXP": lambda a, b: a**b,
    "ABS": lambda a, _: abs(a),
    "SQRT": lambda a, _: math.sqrt(a),
    "MIN": min,
    "MAX": max,
}


def check_floats(operation: str | None, a: float | None, b: float | None) -> None:
    """Raise ValueError for operands that an operation does not accept."""
    if operation == "DIV" and b == 0:
        message = "Cannot divide by zero"
        raise ValueError(message)
    if operation != "EXP" or a is None or b is None:
        return
    if a == 0 and b < 0:
        message = "Cannot raise zero to a negative power"
        raise ValueError(message)
    if a < 0 and not b.is_integer():
        message = "Root operation resulted in a complex number"
        raise ValueError(message)


@invocation(
    "float_math",
    title="Float Math",
    tags=["math", "float", "add", "subtract", "multiply", "divide", "power", "root", "absolute value", "min", "max"],
    category="math",
    version="1.0.1",
)
class FloatMathInvocation(BaseInvocation):
    """Apply an operation to two floats."""

    operation: Literal["ADD", "SUB", "MUL", "DIV", "EXP", "ABS", "SQRT", "MIN", "MAX"] = InputField(
        default="ADD",
        description="The operation",
        ui_choice_labels={
            "ABS": "Absolute Value of A",
            "ADD": "Add A+B",
            "DIV": "Divide A/B",
            "EXP": "Exponentiate A^B",
            "MAX": "Maximum(A,B)",
            "MIN": "Minimum(A,B)",
            "MUL": "Multiply A*B",
            "SQRT": "Square Root of A",
            "SUB": "Subtract A-B",
        },
    )
    a: float = InputField(default=1, description="The first number")
    b: float = InputField(default=1, description="The second number")

    @field_validator("operation", "a", "b")
    @classmethod
    def _check(cls, value: float | str, info: ValidationInfo) -> float | str:
        operands = {**info.data, str(info.field_name): value}
        check_floats(operands.get("operation"), operands.get("a"), operands.get("b"))
        return value

    def invoke(self, context: InvocationContext) -> FloatOutput:
        """Return the result."""
        return FloatOutput(value=FLOAT_OPERATIONS[self.operation](self.a, self.b))
