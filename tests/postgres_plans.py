"""Plans of the statements that a PostgreSQL database runs."""

import json
from collections.abc import Iterator
from typing import Any

from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.kit.sql.transactions import Rows


class Explaining(PostgresDatabase):
    """A database that collects the plans of single reads."""

    plans: list[Any]

    def __init__(self, address: str, *, analyze: bool = False) -> None:
        """Configure the database; with `analyze`, plans have the numbers of rows that were read."""
        super().__init__(address)
        self.plans = []
        self._options = "ANALYZE, FORMAT JSON" if analyze else "FORMAT JSON"

    async def fetch(self, sql: str, values: Any) -> Rows:
        """Run one SELECT."""
        ((plan,),) = await super().fetch(f"EXPLAIN ({self._options}) {sql}", values)
        self.plans.append(json.loads(plan)[0]["Plan"])
        return await super().fetch(sql, values)


def steps(plan: Any) -> Iterator[Any]:
    """Yield all steps of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from steps(part)
