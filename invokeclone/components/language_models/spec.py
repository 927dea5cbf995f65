"""Record classes and identification rules of language models. Does not import torch."""

from typing import Literal

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.configs.kinds import CpuOnly, Diffusers, OfAnyBase
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, require
from invokeclone.models.identify.signatures import forms


class LlavaOnevision_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A LLaVA OneVision model, which describes images."""

    type: Literal[ModelType.LlavaOnevision] = ModelType.LlavaOnevision


class TextLLM_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A language model."""

    type: Literal[ModelType.TextLLM] = ModelType.TextLLM


_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_FOLDER = {"repo_variant": forms.repo_variant}


def _is_language_model(model: ModelFiles) -> None:
    require(model.is_folder, "it is not a folder")
    require((model.class_name or "").endswith("ForCausalLM"), f"its class is {model.class_name}")
    require(any((model.path / name).is_file() for name in _TOKENIZERS), "it has no tokenizer")


FAMILY = Family(
    rules=(
        Rule(
            LlavaOnevision_Diffusers_Config,
            forms.is_folder_of("LlavaOnevisionForConditionalGeneration"),
            detectors=_FOLDER,
        ),
        Rule(TextLLM_Diffusers_Config, _is_language_model, detectors=_FOLDER),
    )
)
