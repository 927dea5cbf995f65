"""The text-to-image batch: its nodes exist, its values land where they should."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from invokeclone.graph import registry
from invokeclone.queue.batches import expand
from invokeclone.queue.generation import text_to_image

MODEL = {"key": "k", "hash": "blake3:0", "name": "tiny", "base": "sd-1", "type": "main", "path": "unused"}


@pytest.fixture(scope="module", autouse=True)
def nodes() -> None:
    registry.discover()


def test_there_is_a_picture_for_each_seed() -> None:
    batch = text_to_image(MODEL, "a cat", [7, 8], steps=4, width=128, height=64, scheduler="euler")
    made = [json.loads(item.session)["graph"]["nodes"] for item in expand(batch, 10)]
    assert [nodes["seed"]["value"] for nodes in made] == [7, 8]
    first = made[0]
    assert first["positive_prompt"]["value"] == "a cat"
    assert (first["noise"]["width"], first["noise"]["height"]) == (128, 64)
    assert (first["denoise_latents"]["steps"], first["denoise_latents"]["scheduler"]) == (4, "euler")
    assert first["sd1_model_loader"]["model"] == {key: MODEL[key] for key in ("key", "hash", "name", "base", "type")}
    assert not first["canvas_output"]["is_intermediate"]
    assert "board" not in first["canvas_output"]
    assert (batch.origin, batch.destination) == ("generate", "gallery")


def test_a_board_can_be_chosen() -> None:
    batch = text_to_image(MODEL, "a cat", [1], board_id="b1")
    graph: Any = batch.graph.model_dump()
    assert graph["nodes"]["canvas_output"]["board"] == {"board_id": "b1"}


def test_what_a_node_refuses_is_refused() -> None:
    with pytest.raises(ValidationError):
        text_to_image(MODEL, "a cat", [1], scheduler="nonsense")
