"""The joined worker of a request, authenticated by its token."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from invokeclone.kit.requests import resources_of
from invokeclone.users import signin, worker_tokens
from invokeclone.users.worker_tokens import WorkerToken


async def require_joined_worker(connection: HTTPConnection) -> WorkerToken:
    """Return the worker token of a request or WebSocket. Raises InvalidToken."""
    bearer = signin.bearer(connection.headers.get("authorization"))
    return await worker_tokens.verify(resources_of(connection).database, bearer)


JoinedWorker = Annotated[WorkerToken, Depends(require_joined_worker)]
"""The worker token of the request, for routes that only joined workers use."""
