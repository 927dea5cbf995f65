"""A transaction whose COMMIT gets no answer: it is stored or not, and the database can be reached afterwards or not."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.transactions import CommitUnknown


@contextlib.contextmanager
def losing_commit(
    database: Database,
    module: Any,
    function: str,
    *,
    stored: bool,
    reachable: bool = True,
    error: BaseException | None = None,
) -> Iterator[None]:
    """Lose the answer to the COMMIT of the transaction that calls `function` of a store's `module`."""
    called, begin = getattr(module, function), type(database).write
    is_called = is_lost = False
    lost_error = error or CommitUnknown(None, OSError("the connection is lost"))

    async def call(*arguments: Any, **options: Any) -> Any:
        nonlocal is_called
        is_called = True
        return await called(*arguments, **options)

    @contextlib.asynccontextmanager
    async def write(self: Any) -> AsyncIterator[Any]:
        nonlocal is_lost
        if is_lost and not reachable:
            raise OperationalError("BEGIN", None, OSError("unreachable"))
        async with begin(self) as connection:
            yield connection
            is_first = is_called and not is_lost
            is_lost = is_lost or is_first
            if is_first and not stored:
                raise lost_error
        if is_first:
            raise lost_error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, function, call)
        patch.setattr(type(database), "write", write)
        yield
    assert is_lost
