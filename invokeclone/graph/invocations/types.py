"""Compatibility of the types of an output and an input, from their annotations alone."""

from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


def is_any(annotation: Any) -> bool:
    """Return whether an annotation is or directly contains Any: `Any`, `Any | None`, `list[Any]`."""
    return annotation is Any or Any in get_args(annotation)


def is_union(annotation: Any) -> bool:
    """Return whether an annotation is a union."""
    return get_origin(annotation) in (Union, UnionType)


def takes_none(annotation: Any) -> bool:
    """Return whether None is a valid value for a field of this annotation."""
    return annotation is Any or annotation is None or NoneType in get_args(annotation)


def without_none(annotation: Any) -> Any:
    """Return `T` for an annotation `T | None`; return other annotations unchanged."""
    members = [member for member in get_args(annotation) if member is not NoneType] if is_union(annotation) else []
    return members[0] if len(members) == 1 else annotation


def is_list(annotation: Any) -> bool:
    """Return whether an annotation is a list."""
    return annotation is list or get_origin(annotation) is list


def holds_list(annotation: Any) -> bool:
    """Return whether an annotation is a list or a union that contains one."""
    return is_list(annotation) or (is_union(annotation) and any(is_list(member) for member in get_args(annotation)))


def elements(annotation: Any) -> set[Any]:
    """Return the element types of a list, or of all lists in a union."""
    if is_union(annotation):
        return {element for member in get_args(annotation) for element in elements(member)}
    if not is_list(annotation):
        return set()
    arguments = get_args(annotation) or (Any,)
    return set(get_args(arguments[0])) - {NoneType} if is_union(arguments[0]) else {arguments[0]}


def roots(annotation: Any) -> set[Any]:
    """Return the types of single values in an annotation: members of unions, elements of lists, types of literals."""
    if annotation is NoneType:
        return set()
    origin = get_origin(annotation)
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if is_union(annotation) or origin is list:
        return {root for member in get_args(annotation) for root in roots(member)}
    return {annotation if origin is None else origin}


def is_subclass(subtype: Any, other: Any) -> bool:
    """Return whether both are classes and the first is a subclass of the second."""
    return isinstance(subtype, type) and isinstance(other, type) and issubclass(subtype, other)


def compatible(source: Any, destination: Any) -> bool:
    """Return whether an output of type `source` may be connected to an input of type `destination`.

    For unions and lists one matching member is enough, in either direction; values are validated when the graph runs.
    """
    try:
        return _compatible(source, destination)
    except TypeError:  # an unhashable annotation
        return _compatible.__wrapped__(source, destination)


@lru_cache(maxsize=4096)
def _compatible(source: Any, destination: Any) -> bool:
    if source is None or destination is None:
        return False
    destination = without_none(destination)
    if source == destination or is_any(source) or is_any(destination):
        return True
    if (source is int and destination is float) or (source in (int, float) and destination is str):
        return True
    if is_subclass(source, destination) or source in get_args(destination) or destination in get_args(source):
        return True
    return is_union(source) and set(get_args(source)) <= set(get_args(destination))
