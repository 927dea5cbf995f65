"""What generator nodes make, as the editor makes it."""

from typing import Any

import pytest

from invokeclone.workflows import generators


def generate(**value: Any) -> list[Any]:
    return generators.read(value).make()  # type: ignore[union-attr]


def test_arithmetic_sequences() -> None:
    assert generate(type="integer_generator_arithmetic_sequence", start=1, step=2, count=3) == [1, 3, 5]
    assert generate(type="integer_generator_arithmetic_sequence", start=1, step=0, count=3) == [1]
    assert generate(type="float_generator_arithmetic_sequence", start=0.5, step=0.25, count=2) == [0.5, 0.75]


def test_linear_distributions() -> None:
    assert generate(type="float_generator_linear_distribution", start=0, end=1, count=3) == [0, 0.5, 1]
    assert generate(type="integer_generator_linear_distribution", start=0, end=3, count=3) == [0, 2, 3]
    assert generate(type="integer_generator_linear_distribution", start=4, end=9, count=1) == [4]
    assert generate(type="integer_generator_linear_distribution", start=4, end=9, count=0) == []


def test_random_numbers() -> None:
    fields = {"type": "integer_generator_random_distribution_uniform", "min": 3, "max": 5, "count": 50, "seed": 1}
    assert generate(**fields) == generate(**fields)
    assert set(generate(**fields)) == {3, 4, 5}
    assert set(generate(**{**fields, "min": 5, "max": 3})) == {3, 4, 5}
    floats = {"type": "float_generator_random_distribution_uniform", "min": 3, "max": 5, "count": 5}
    assert all(3 <= number <= 5 for number in generate(**floats))
    assert generate(**floats, values=[1.5]) == [1.5]


@pytest.mark.parametrize(
    ("text", "split_on", "integers", "floats", "strings"),
    [
        ("1, 2.5 ,x,,3e1", ",", [1, 2, 3], [1, 2.5, 30], ["1", " 2.5 ", "x", "3e1"]),
        ("1\n-2px", "\\n", [1, -2], [1, -2], ["1", "-2px"]),
        ("1,2", "", [1], [1], ["1,2"]),
        ('a"b', '"', [], [], ["a", "b"]),
        ("", ",", [], [], []),
    ],
)
def test_parsed_strings(text: str, split_on: str, integers: Any, floats: Any, strings: Any) -> None:
    for kind, expected in (("integer", integers), ("float", floats), ("string", strings)):
        assert generate(type=f"{kind}_generator_parse_string", input=text, splitOn=split_on) == expected
