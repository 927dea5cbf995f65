"""Files that resemble a kind of model but lack some of its tensors, and models that are stated to be another kind."""

import re

import pytest

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.models.configs.model_config import Unknown_Config
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import identify
from tests.models.identify.corpus import CASES
from tests.models.identify.in_memory import FileInMemory

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}
FILES = [case for case in CASES if case.in_memory is not None]
SHORT = ("TI_File_",)
"""Files of a few vectors, which are identified by their width only."""
NAMED_INSIDE = ("LoRA_LyCORIS_SD", "LoRA_OMI_")
"""LoRAs of UNets are identified by names of layers anywhere in a tensor's name, others by their metadata."""
FIRST = list({case.expected: case for case in reversed(FILES)}.values())
"""One file for each class."""
TAGS = {config.__name__: dict(registry.tag_fields(config)) for config in registry.config_classes()}


def without(cases, *beginnings):
    return [case for case in cases if not case.expected.startswith(beginnings)]


def identified(model, **stated):
    return type(identify(model, FACTS, stated, allow_unknown=not stated)).__name__


def groups(names):
    """Return regular expressions for names of the same kind of layer, numbers aside; at most six, spread evenly."""
    stems = [re.sub(r"\d+", "N", name.rsplit(".", 2)[0]) for name in names]
    unique = list(dict.fromkeys(stems))
    return unique[:: max(1, len(unique) // 6)]


def check_incomplete(case):
    """Remove each kind of layer in turn: the file is of the same family, or nothing."""
    shapes = {name: tensor.shape for name, tensor in case.in_memory.tensors.items()}
    base, kind = TAGS[case.expected]["base"], TAGS[case.expected]["type"]
    for group in groups(shapes):
        rest = {n: s for n, s in shapes.items() if re.sub(r"\d+", "N", n.rsplit(".", 2)[0]) != group}
        model = FileInMemory(rest, case.in_memory.path.name, dict(case.in_memory.metadata))
        config = identify(model, FACTS, {}, allow_unknown=True)
        if not isinstance(config, Unknown_Config):
            assert (config.type, config.base) in {(kind, base), ("lora", base)}, f"without {group}"


@pytest.mark.parametrize("case", without(FIRST, *SHORT), ids=lambda case: case.id)
def test_an_incomplete_file_is_of_the_same_family_or_unknown(case):
    check_incomplete(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", without(FILES, *SHORT), ids=lambda case: case.id)
def test_every_incomplete_file_is_of_the_same_family_or_unknown(case):
    check_incomplete(case)


@pytest.mark.parametrize("case", without(FIRST, *SHORT, *NAMED_INSIDE), ids=lambda case: case.id)
def test_a_file_with_other_names_is_unknown(case):
    shapes = {f"x{name}": tensor.shape for name, tensor in case.in_memory.tensors.items()}
    model = FileInMemory(shapes, f"model{case.in_memory.path.suffix}")
    assert identified(model) == "Unknown_Config"


SAME_TENSORS = [
    {"VAE_Checkpoint_SD1_Config", "VAE_Checkpoint_SD2_Config", "VAE_Checkpoint_SDXL_Config"},
    {"VAE_Checkpoint_QwenImage_Config", "VAE_Checkpoint_Wan_Config", "VAE_Checkpoint_Anima_Config"},
    {"PiDDecoder_Checkpoint_FLUX_Config", "PiDDecoder_Checkpoint_SD3_Config", "PiDDecoder_Checkpoint_QwenImage_Config"},
]
"""Classes whose files have the same tensors, so that the user decides."""


def check_stated(case, others):
    for other in others:
        if other == case.expected or any({other, case.expected} <= group for group in SAME_TENSORS):
            continue
        stated = {name: str(value) for name, value in TAGS[other].items()}
        try:
            result = identified(case.in_memory, **stated)
        except InvokeCloneError as error:
            assert "known kind" in str(error), other  # noqa: PT017
        else:
            assert result == case.expected


def same_form(case):
    wanted = {name: TAGS[case.expected][name] for name in ("type", "format")}
    return [name for name, tag in TAGS.items() if wanted.items() <= tag.items()]


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.id)
def test_a_file_is_refused_as_a_model_of_another_base(case):
    check_stated(case, same_form(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.id)
def test_a_file_is_refused_as_any_other_kind(case):
    check_stated(case, set(TAGS) - {"Unknown_Config", "ExternalApiModelConfig"})
