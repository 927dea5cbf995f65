"""A node is one class: declared, it is validated, run and published; nothing else is edited."""

import pytest

from invokeclone.graph import publish
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import StringOutput
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.session.graph import Graph
from invokeclone.graph.vocabulary.fields import InputField


@pytest.fixture
def toy(own_nodes: None) -> None:
    @invocation("shout", title="Shout", tags=["toy"], category="toy", version="1.0.0")
    class ShoutInvocation(BaseInvocation):
        """Say it louder."""

        text: str = InputField(description="What to say.")

        def invoke(self, context: InvocationContext) -> StringOutput:
            return StringOutput(value=self.text.upper())


@pytest.mark.usefixtures("toy")
def test_a_node_needs_only_a_class() -> None:
    graph = Graph.model_validate({"nodes": {"a": {"id": "a", "type": "shout", "text": "hello"}}, "edges": []})
    session = GraphExecutionState(graph=graph)
    node = session.next()
    assert node is not None
    session.complete(node.id, node.invoke(None))
    assert session.is_complete()
    assert [output.value for output in session.results.values()] == ["HELLO"]
    schemas = publish.publish({"paths": {}, "components": {"schemas": {}}})["components"]["schemas"]
    assert schemas["ShoutInvocation"]["properties"]["text"]["orig_required"] is True
    assert {"$ref": "#/components/schemas/ShoutInvocation"} in schemas["Graph"]["properties"]["nodes"][
        "additionalProperties"
    ]["oneOf"]
