"""Every record class from files in the layouts in which they are published: the class, its variant and its sizes."""

import pytest

from invokeclone.models.configs.model_config import Unknown_Config
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import find_matches, identify
from tests.models.identify.corpus import CASES, UNSUPPORTED

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}
WITHOUT_FILES = {"ExternalApiModelConfig", "Unknown_Config"}
BOTH_TOWERS = "CLIPVision_Diffusers_Config-whole"
"""A whole CLIP can be used as either encoder."""
LANGUAGE_MODELS = ("Qwen3Encoder_", "Gemma2Encoder_", "MistralEncoder_")
"""Folders of these encoders may be language models with a head and a tokenizer, the fallback class."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_exactly_one_class_matches(make, case):
    model = ModelFiles(case.write(make))
    config = identify(model, FACTS, {}, allow_unknown=False)
    assert type(config).__name__ == case.expected
    dumped = config.model_dump(mode="json")
    assert {name: dumped[name] for name in case.fields} == case.fields
    others = {type(match).__name__ for match in find_matches(model, FACTS, {})[0]} - {case.expected}
    allowed = {"CLIPEmbed_Diffusers_L_Config"} if case.id == BOTH_TOWERS else set()
    if case.expected.startswith(LANGUAGE_MODELS):
        allowed = {"TextLLM_Diffusers_Config"}
    assert others <= allowed


def test_every_class_has_a_case():
    assert {config.__name__ for config in registry.config_classes()} - {
        case.expected for case in CASES
    } == WITHOUT_FILES


UNSUPPORTED_FILES = [
    pytest.param(name, shapes, form, id=f"{form}-{name}")
    for name, shapes in UNSUPPORTED
    for form in ("safetensors", "gguf")
    if form == "safetensors" or not any("bitsandbytes" in tensor for tensor in shapes)
]


@pytest.mark.parametrize(("name", "shapes", "form"), UNSUPPORTED_FILES)
def test_unsupported_kinds_are_named(make, name, shapes, form):
    model = ModelFiles(make.header("a.safetensors", shapes) if form == "safetensors" else make.gguf("a.gguf", shapes))
    with pytest.raises(InvalidModel, match=name):
        identify(model, FACTS, {}, allow_unknown=False)
    with pytest.raises(InvalidModel, match=name):
        identify(model, FACTS, {"type": "main", "base": "flux"}, allow_unknown=True)
    config = identify(model, FACTS, {}, allow_unknown=True)
    assert isinstance(config, Unknown_Config)
    assert name in (config.description or "")
    assert identify(model, FACTS, {"description": "mine"}, allow_unknown=True).description == "mine"
