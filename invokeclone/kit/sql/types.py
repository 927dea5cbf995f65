"""Column types that differ between SQLite and PostgreSQL."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Dialect, Integer, SmallInteger, Text, TypeDecorator
from sqlalchemy.types import TypeEngine

Key = BigInteger().with_variant(Integer(), "sqlite")
"""A generated number or a number of bytes: 64 bits in both databases."""

OrderedText = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that compares by its code points, as SQLite's does, whatever the database's locale."""


class Flag(TypeDecorator[bool]):
    """A boolean that is stored as 0 or 1 in both databases, so that SQL may compare and sum it as a number."""

    impl = Boolean
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return BOOLEAN for SQLite, where it is an integer, and SMALLINT for PostgreSQL."""
        is_postgres = dialect.name == "postgresql"
        return dialect.type_descriptor(SmallInteger() if is_postgres else Boolean(create_constraint=False))

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> Any:
        """Return the number for PostgreSQL."""
        return value if value is None or dialect.name != "postgresql" else int(value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> bool | None:
        """Return the boolean for the stored number."""
        return None if value is None else bool(value)
