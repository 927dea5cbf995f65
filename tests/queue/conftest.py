"""A queue to test with: nodes that need no model, the routes on a small application, and a client for them."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import httpx
import pytest

from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import ImageField, InputField, OutputField
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.workers import Workers
from invokeclone.queue import service
from invokeclone.queue.api import router
from invokeclone.queue.batches import Batch
from invokeclone.server.http import bodies, errors
from invokeclone.users.current import SYSTEM, User
from tests.applications import RunningWorkers


@invocation_output("queue_test_output")
class QueueTestOutput(BaseInvocationOutput):
    value: int = OutputField(default=0, description="A number")


@invocation("queue_test", title="Queue Test", category="tests", version="1.0.0")
class QueueTestInvocation(BaseInvocation):
    """A node with a field of each kind that a batch may fill."""

    number: int = InputField(default=0, description="A number")
    small: int = InputField(default=0, ge=0, le=9, description="A number below ten")
    ratio: float = InputField(default=0.0, description="A real number")
    text: str = InputField(default="", description="A text")
    choice: Literal["a", "b"] = InputField(default="a", description="A word")
    image: ImageField | None = InputField(default=None, description="An image")
    numbers: list[int] = InputField(default=[], description="Numbers")

    def invoke(self, context: Any) -> QueueTestOutput:
        return QueueTestOutput(value=self.number)


class Make:
    """Builds what clients send."""

    @staticmethod
    def graph(**nodes: dict[str, Any]) -> dict[str, Any]:
        """Return a graph of test nodes by their ids; one node `a` by default."""
        fields_by_id = nodes or {"a": {}}
        graph_nodes = {name: {"id": name, "type": "queue_test", **fields} for name, fields in fields_by_id.items()}
        return {"id": "g", "nodes": graph_nodes, "edges": []}

    @staticmethod
    def datum(node: str, field: str, *items: Any) -> dict[str, Any]:
        return {"node_path": node, "field_name": field, "items": list(items)}

    def batch(self, **fields: Any) -> dict[str, Any]:
        return {"graph": self.graph(), "runs": 1, **fields}


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def app(resources: Resources) -> Application:
    application = Application()
    application.include_router(bodies.read_strictly(router))
    application.services.add(Resources, resources)
    application.services.add(Workers, RunningWorkers())
    errors.install(application)
    return application


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/queue/default/") as opened:
        yield opened


Enqueue = Callable[..., Any]


@pytest.fixture
def enqueue(client: httpx.AsyncClient, make: Make) -> Enqueue:
    """Enqueue a batch and return the answer's body."""

    async def act(*, prepend: bool = False, queue: str = "default", **fields: Any) -> dict[str, Any]:
        body = {"batch": make.batch(**fields), "prepend": prepend}
        answer = await client.post(f"http://test/api/v1/queue/{queue}/enqueue_batch", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    return act


@pytest.fixture
def add(resources: Resources, make: Any) -> Any:
    """Enqueue a batch of the default queue, in ascending order of ids."""

    async def act(*, queue: str = "default", prepend: bool = False, user: User = SYSTEM, **fields: Any) -> Any:
        batch = Batch.model_validate(make.batch(**fields))
        return (await service.enqueue(resources, queue, batch, prepend=prepend, user=user)).item_ids[::-1]

    return act
