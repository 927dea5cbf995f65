"""The workflows that come with the application, run node by node with a tiny model."""

from collections import Counter
from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from tests.applications import sample_image
from tests.fakes_context import FakeContext
from tests.workflows.test_defaults import FILES, graph_of, read

IMAGES = {"seed_sweep_sd1": 4}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_workflow_generates_images(
    file: Any, node_context: FakeContext, sd1_identifier: ModelIdentifierField
) -> None:
    registry.discover()
    node_context.images.put(sample_image(size=(50, 40)), name="a.png")
    graph = graph_of(read(file))
    for node in graph.nodes.values():
        if node.get_type() == "main_model_loader":
            node.model = sd1_identifier
        elif "width" in type(node).model_fields:
            node.width = node.height = 64
        elif node.get_type() == "denoise_latents":
            node.steps = 2
    session = GraphExecutionState.start(graph)
    while node := session.next():
        session.complete(node.id, node.invoke_checked(node_context))
    assert session.is_complete()
    ran = Counter(session.graph.nodes[session.prepared_source_mapping[output]].get_type() for output in session.results)
    assert ran["l2i"] == IMAGES.get(file.stem, 1)
    for output in (result for result in session.results.values() if result.get_type() == "image_collection_output"):
        assert len({image.image_name for image in output.collection}) == IMAGES[file.stem]
