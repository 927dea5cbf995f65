"""Column types that differ between SQLite and PostgreSQL."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Dialect, Integer, SmallInteger, Text, TypeDecorator
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import AsBoolean
from sqlalchemy.types import TypeEngine

Key = BigInteger().with_variant(Integer(), "sqlite")
"""A generated number or a number of bytes: 64 bits in both databases."""

RowCount = BigInteger()
"""A number of rows to skip or to take, which clients choose: 64 bits."""
ALL_ROWS = 2**63 - 1
"""The number of rows to take for all of them."""


class _PlainText(Text):
    """TEXT COLLATE "C", whose parameters have no collation: PostgreSQL's BETWEEN does not allow one."""

    def __init__(self) -> None:
        super().__init__(collation="C")

    def adapt(self, cls: Any, **options: Any) -> Any:
        """Return the driver's type, which is that of parameters."""
        return Text().adapt(cls, **options)


OrderedText = Text().with_variant(_PlainText(), "postgresql")
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


@compiles(AsBoolean, "postgresql")
def _flag_as_condition(element: AsBoolean, compiler: Any, **options: Any) -> str:
    """Compare a flag that is used as a condition with its number, as SQLAlchemy does for SQLite."""
    if not isinstance(element.element.type, Flag):
        return str(compiler.visit_unary(element, **options))
    value = 1 if element.operator is operators.is_true else 0
    return f"{compiler.process(element.element, **options)} = {value}"
