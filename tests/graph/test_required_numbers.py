"""A whole number may flow into a required float: "required" is written as an optional annotation, which must not hide the float."""

import pytest

from invokeclone.graph.invocations.types import compatible, without_none


@pytest.mark.parametrize(
    ("source", "destination", "fits"),
    [
        (int, float | None, True),
        (float, int | None, False),
        (int, str | None, True),
        (bool, str | None, False),
        (bool, int | None, True),
        (int, float | str, False),
        (int, list[float] | None, False),
        (int, list[int] | None, True),
    ],
)
def test_optional_types_are_unwrapped(source: object, destination: object, fits: bool) -> None:
    assert compatible(source, destination) is fits


def test_only_a_single_optional_type_is_unwrapped() -> None:
    assert without_none(float | None) is float
    assert without_none(int | str | None) == int | str | None
    assert without_none(float) is float
