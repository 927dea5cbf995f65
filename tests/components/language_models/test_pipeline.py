"""Tiny language models through their pipeline and nodes."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.components.language_models import load, pipeline
from invokeclone.components.language_models.nodes import TextLLMInvocation, TextLLMWithPresetInvocation
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.context import CanceledException
from invokeclone.graph.vocabulary.fields import SystemPromptField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings
from tests.fakes_context import FakeContext
from tests.language_models import write_llava, write_text_llm

CPU = torch.device("cpu")
TEMPLATE = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ m.content }}]{% endfor %}"


def part(loader: Any, folder: Path, submodel: SubModelType | None = None) -> Any:
    return loader(LoadRequest(None, folder, submodel, torch.float32, CPU, Settings()))


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = write_text_llm(tmp_path_factory.mktemp("llm"))
    return part(load.load, folder), part(load.load, folder, SubModelType.Tokenizer)


@pytest.fixture(scope="module")
def describer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    folder = write_llava(tmp_path_factory.mktemp("llava"))
    return tuple(
        part(load.load_llava, folder, which) for which in (None, SubModelType.Tokenizer, SubModelType.Scheduler)
    )


def write_text(writer: tuple[Any, Any], seed: int, on_tokens: Any = lambda _count: None, max_tokens: int = 8) -> str:
    return pipeline.write(
        *writer, "a cat", "be short", max_tokens=max_tokens, seed=seed, device=CPU, on_tokens=on_tokens
    )


def test_the_same_seed_gives_the_same_text(writer: tuple[Any, Any]) -> None:
    before = torch.random.get_rng_state()
    assert write_text(writer, 1) == write_text(writer, 1)
    assert write_text(writer, 1) != write_text(writer, 2)
    assert torch.equal(torch.random.get_rng_state(), before), "nodes' random numbers are not touched"


def test_each_token_is_reported(writer: tuple[Any, Any]) -> None:
    counts: list[int] = []
    write_text(writer, 1, counts.append)
    assert counts == list(range(1, len(counts) + 1))
    assert 1 <= len(counts) <= 8


def test_a_callback_may_stop_the_model(writer: tuple[Any, Any]) -> None:
    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_text(writer, 1, stop)


def test_templates_without_system_role_get_a_single_turn(tmp_path: Path) -> None:
    tokenizer = part(load.load, write_text_llm(tmp_path, chat_template=TEMPLATE), SubModelType.Tokenizer)
    assert tokenizer.decode(pipeline.encode(tokenizer, "a cat", "be short", CPU)[0]) == "[be short\n\na cat]"


def test_thinking_is_removed_from_the_output(writer: tuple[Any, Any]) -> None:
    _model, tokenizer = writer
    tokens = torch.tensor(tokenizer("<think>hm\nhm</think> A cat. ")["input_ids"])
    assert pipeline._text(tokenizer, tokens) == "A cat."


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (100, 20), (1, 1)])
def test_image_descriptions_match_the_models_own_generate(
    describer: tuple[Any, Any, Any], size: tuple[int, int]
) -> None:
    """The model's own way has tokens for the picture in the prompt; where these go and how many they are must agree."""
    model, tokenizer, processor = describer
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    description = pipeline.describe(
        model, tokenizer, processor, image, "say", device=CPU, on_tokens=lambda _count: None
    )

    inputs = processor(images=[image], return_tensors="pt")
    places = torch.full((1, pipeline.encode_image(model, processor, image, CPU).shape[0]), model.config.image_token_id)
    before, after = (pipeline._tokens(tokenizer, text, CPU) for text in pipeline._text_around_image(tokenizer, "say"))
    tokens = torch.cat([before, places, after], dim=1)
    expected_tokens = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        pixel_values=inputs["pixel_values"],
        image_sizes=torch.as_tensor(inputs["image_sizes"]),
        max_new_tokens=pipeline.DESCRIPTION_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    assert description == pipeline._text(tokenizer, expected_tokens[0, tokens.shape[1] :])


class FakeModels:
    """A models face that has one model."""

    def __init__(self, writer: tuple[Any, Any]) -> None:
        self._writer = writer

    def load(self, identifier: ModelIdentifierField, submodel: SubModelType | None = None) -> Any:
        assert identifier.key == "k"
        return nullcontext(self._writer[1] if submodel is SubModelType.Tokenizer else self._writer[0])


MODEL = {"key": "k", "hash": "h", "name": "n", "base": "any", "type": "text_llm"}


def test_both_nodes_give_the_same_text_for_the_same_system_prompt(writer: tuple[Any, Any]) -> None:
    presets = SimpleNamespace(system_prompt={"p": "be short"}.__getitem__)
    context = FakeContext(models=FakeModels(writer), presets=presets)
    common = {"id": "n", "prompt": "a cat", "text_llm_model": MODEL, "max_tokens": 6, "seed": 5}
    plain = TextLLMInvocation(**common, system_prompt="be short").invoke(context)
    saved = TextLLMWithPresetInvocation(**common, system_prompt=SystemPromptField(system_prompt_id="p")).invoke(context)
    assert plain.value == saved.value == write_text(writer, 5, max_tokens=6)
    assert TextLLMInvocation(**common).invoke(context).value != plain.value
    assert context.util.progress[0] == ("Writing", 1 / 6)


def test_a_node_stops_when_its_item_is_canceled(writer: tuple[Any, Any]) -> None:
    context = FakeContext(models=FakeModels(writer))
    context.util.canceled = True
    with pytest.raises(CanceledException):
        TextLLMInvocation(id="n", prompt="a", text_llm_model=MODEL).invoke(context)
