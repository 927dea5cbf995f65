"""Arithmetic and ranges."""

from typing import Any

import pytest
from pydantic import ValidationError

from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.nodes.data import collections, math
from tests.fakes_context import FakeContext


def value(node: BaseInvocation) -> Any:
    output = node.invoke_checked(FakeContext())  # type: ignore[arg-type]
    return getattr(output, "collection", None) if hasattr(output, "collection") else output.value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("node", "a", "b", "result"),
    [
        (math.AddInvocation, 2, 3, 5),
        (math.SubtractInvocation, 2, 3, -1),
        (math.MultiplyInvocation, 2, 3, 6),
        (math.DivideInvocation, 7, 2, 3),
        (math.DivideInvocation, -7, 2, -3),
    ],
)
def test_basic_operations(node: Any, a: int, b: int, result: int) -> None:
    assert value(node(a=a, b=b)) == result


def test_division_by_zero_fails_at_execution() -> None:
    node = math.DivideInvocation(a=1, b=0)
    with pytest.raises(ZeroDivisionError):
        value(node)


@pytest.mark.parametrize(
    ("operation", "a", "b", "result"),
    [
        ("ADD", 2, 3, 5),
        ("SUB", 2, 3, -1),
        ("MUL", 2, 3, 6),
        ("DIV", -7, 2, -3),
        ("EXP", 2, 10, 1024),
        ("MOD", -7, 3, 2),
        ("ABS", -7, 0, 7),
        ("MIN", 2, 3, 2),
        ("MAX", 2, 3, 3),
    ],
)
def test_integer_math(operation: Any, a: int, b: int, result: int) -> None:
    assert value(math.IntegerMathInvocation(operation=operation, a=a, b=b)) == result


@pytest.mark.parametrize(("operation", "b"), [("DIV", 0), ("MOD", 0), ("EXP", -1)])
def test_invalid_integer_math_is_refused(operation: Any, b: int) -> None:
    with pytest.raises(ValidationError):
        math.IntegerMathInvocation(operation=operation, b=b)
    node = math.IntegerMathInvocation(operation=operation)
    with pytest.raises(ValidationError):
        node.b = b
    node = math.IntegerMathInvocation(b=b)
    with pytest.raises(ValidationError):
        node.operation = operation


@pytest.mark.parametrize(
    ("operation", "a", "b", "result"),
    [
        ("ADD", 2, 0.5, 2.5),
        ("SUB", 2, 0.5, 1.5),
        ("MUL", 2, 0.5, 1.0),
        ("DIV", 1, 4, 0.25),
        ("EXP", 4, 0.5, 2.0),
        ("EXP", -2, 2, 4.0),
        ("ABS", -1.5, 0, 1.5),
        ("SQRT", 9, 0, 3.0),
        ("MIN", 2, 3, 2),
        ("MAX", 2, 3, 3),
    ],
)
def test_float_math(operation: Any, a: float, b: float, result: float) -> None:
    assert value(math.FloatMathInvocation(operation=operation, a=a, b=b)) == result


@pytest.mark.parametrize(("operation", "a", "b"), [("DIV", 1, 0), ("EXP", 0, -1), ("EXP", -4, 0.5)])
def test_invalid_float_math_is_refused(operation: Any, a: float, b: float) -> None:
    with pytest.raises(ValidationError):
        math.FloatMathInvocation(operation=operation, a=a, b=b)


@pytest.mark.parametrize(
    ("number", "multiple", "method", "result"),
    [
        (2.5, 1, "Nearest", 2),
        (3.5, 1, "Nearest", 4),
        (2.9, 1, "Floor", 2),
        (-2.1, 1, "Floor", -3),
        (2.1, 1, "Ceiling", 3),
        (-2.9, 1, "Truncate", -2),
        (515, 8, "Nearest", 512),
        (515, 8, "Ceiling", 520),
    ],
)
def test_float_to_int(number: float, multiple: int, method: Any, result: int) -> None:
    assert value(math.FloatToIntegerInvocation(value=number, multiple=multiple, method=method)) == result


def test_round() -> None:
    assert value(math.RoundInvocation(value=1.2345, decimals=2)) == 1.23


def test_random_numbers() -> None:
    assert {value(math.RandomIntInvocation(low=3, high=5)) for _ in range(60)} == {3, 4}
    for _ in range(20):
        drawn = value(math.RandomFloatInvocation(low=-1, high=1, decimals=1))
        assert -1 <= drawn <= 1
        assert drawn == round(drawn, 1)


def test_ranges() -> None:
    assert value(collections.RangeInvocation(start=1, stop=7, step=3)) == [1, 4]
    assert value(collections.RangeOfSizeInvocation(start=5, size=3, step=-2)) == [5, 3, 1]
    assert value(collections.FloatLinearRangeInvocation(start=0, stop=1, steps=3)) == [0.0, 0.5, 1.0]
    for bad in ({"start": 3, "stop": 3}, {"start": 3, "stop": 1, "step": -1}):
        with pytest.raises(ValidationError):
            collections.RangeInvocation(**bad)
    with pytest.raises(ValidationError):
        collections.RangeOfSizeInvocation(size=0)


def test_random_range() -> None:
    first = value(collections.RandomRangeInvocation(low=0, high=10, size=50, seed=7))
    assert first == value(collections.RandomRangeInvocation(low=0, high=10, size=50, seed=7))
    assert first != value(collections.RandomRangeInvocation(low=0, high=10, size=50, seed=8))
    assert set(first) <= set(range(10))
    assert all(type(number) is int for number in first)
    with pytest.raises(ValidationError):
        collections.RandomRangeInvocation(seed=2**32)
