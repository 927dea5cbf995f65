"""Typed container of an application's long-lived services."""

from typing import TypeVar, cast

Part = TypeVar("Part")


class MissingService(LookupError):
    """The application has no service of this type."""


class Services:
    """Services by class or protocol, created by the composition root and used by requests."""

    def __init__(self) -> None:
        """Create an empty container."""
        self._parts: dict[type, object] = {}

    def add(self, kind: type[Part], part: Part) -> Part:
        """Add `part` as the service of type `kind`, replacing an earlier one, and return it."""
        self._parts[kind] = part
        return part

    def get(self, kind: type[Part]) -> Part:
        """Return the service of type `kind`; raises MissingService."""
        try:
            return cast("Part", self._parts[kind])
        except KeyError:
            raise MissingService(f"the application has no {kind.__name__}; add it to its services") from None

    def get_or_make(self, kind: type[Part]) -> Part:
        """Return the service of type `kind`, created without arguments if there is none yet."""
        if kind not in self._parts:
            self._parts[kind] = kind()
        return cast("Part", self._parts[kind])
