"""Which types may flow into which."""

from typing import Any, Literal

import pytest

from invokeclone.graph.invocations.types import compatible, elements, holds_list, roots


class Above:
    pass


class Below(Above):
    pass


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (int, int),
        (Any, int),
        (int, Any),
        (int, Any | None),
        (list[Any], int),
        (int, list[Any]),
        (int, int | str),
        (int | str, int),
        (int, list[int]),
        (list[int], int),
        (int, float),
        (int, str),
        (float, str),
        (Below, Above),
        (bool, int),
        (Above, Above | None),
        (int | str, int | str | None),
        (list[int], list[int] | None),
    ],
)
def test_compatible(source: Any, destination: Any) -> None:
    assert compatible(source, destination)


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (None, int),
        (int, None),
        (float, int),
        (bool, str),
        (str, int),
        (Above, Below),
        (int | bytes, int | str),
        (list[int], list[str]),
    ],
)
def test_incompatible(source: Any, destination: Any) -> None:
    assert not compatible(source, destination)


def test_parts() -> None:
    assert elements(list[int] | None) == {int}
    assert elements(list[int | str]) == {int, str}
    assert elements(list) == {Any}
    assert elements(int) == set()
    assert roots(list[int] | str | None) == {int, str}
    assert roots(Literal["a", "b"]) == {str}
    assert roots(dict[str, int]) == {dict}
    assert holds_list(int | list[int])
    assert not holds_list(int | str)
