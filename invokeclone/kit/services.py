"""The long-lived parts of one application, found by their class."""

from typing import TypeVar, cast

Part = TypeVar("Part")


class MissingService(LookupError):
    """The application was composed without this part."""


class Services:
    """What the composition root makes once and requests use: one part per class or protocol."""

    def __init__(self) -> None:
        """Make an empty container."""
        self._parts: dict[type, object] = {}

    def add(self, kind: type[Part], part: Part) -> Part:
        """Keep `part` as the one of `kind`, in place of an earlier one, and return it."""
        self._parts[kind] = part
        return part

    def get(self, kind: type[Part]) -> Part:
        """Return the part of `kind`; raises MissingService."""
        try:
            return cast("Part", self._parts[kind])
        except KeyError:
            raise MissingService(f"the application has no {kind.__name__}; add it to its services") from None

    def get_or_make(self, kind: type[Part]) -> Part:
        """Return the part of `kind`, made without arguments when there is none yet."""
        if kind not in self._parts:
            self._parts[kind] = kind()
        return cast("Part", self._parts[kind])
