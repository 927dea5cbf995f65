"""Starter models of the families that make images: each has a loader, and what it needs is complete."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.engine.loading import loaders
from invokeclone.families.flux2 import parts as flux2_parts
from invokeclone.families.z_image import parts as z_image_parts
from invokeclone.graph.recipes import recipes
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import identify
from invokeclone.models.records import starters

CONTENT = starters._load_files()
IDS = {entry.id: entry for entry in CONTENT.models}
BUNDLES = {base: bundle.models for base, bundle in CONTENT.bundles.items() if base in recipes()}
OF_SUPPORTED_FAMILIES = [entry for entry in CONTENT.models if entry.base in recipes()]
USED = sorted(
    {entry.id for entry in OF_SUPPORTED_FAMILIES}
    | {needed for entry in OF_SUPPORTED_FAMILIES for needed in entry.needs}
    | {name for names in BUNDLES.values() for name in names}
)
SEPARATE_PARTS = {ModelType.T5Encoder, ModelType.CLIPEmbed, ModelType.VAE}
NEEDED_TYPES = {
    (BaseModelType.Flux, ModelType.Main): SEPARATE_PARTS,
    (BaseModelType.Flux, ModelType.FluxRedux): {ModelType.SigLIP},
    (BaseModelType.Flux, ModelType.IPAdapter): {ModelType.CLIPVision},
    (BaseModelType.StableDiffusion1, ModelType.IPAdapter): {ModelType.CLIPVision},
    (BaseModelType.StableDiffusionXL, ModelType.IPAdapter): {ModelType.CLIPVision},
}


def formats_of(entry: Any) -> set[ModelFormat]:
    """Return the formats that an entry may have."""
    kinds = [registry.tag_fields(config) for config in registry.config_classes()]
    return {kind["format"] for kind in kinds if (kind["type"], kind["base"]) == (entry.type, entry.base)}


@pytest.mark.parametrize("name", USED)
def test_every_starter_model_has_a_loader(name: str) -> None:
    entry = IDS[name]
    possible = {entry.format} if entry.format else formats_of(entry)
    records = [SimpleNamespace(name=name, base=entry.base, type=entry.type, format=form) for form in possible]

    def is_loaded(record: Any) -> bool:
        try:
            return callable(loaders.find(record))
        except loaders.NoLoader:
            return False

    assert any(map(is_loaded, records)), f"{entry.name} cannot be loaded"


@pytest.mark.parametrize("entry", OF_SUPPORTED_FAMILIES, ids=lambda entry: entry.id)
def test_needs_are_complete(entry: Any) -> None:
    needed = {IDS[name].type for name in entry.needs}
    assert needed >= NEEDED_TYPES.get((entry.base, entry.type), set())


def test_transformers_in_files_come_with_a_text_encoder_and_a_vae() -> None:
    encoders = {
        "klein_4b": "qwen3_4b_gguf", "klein_9b": "qwen3_8b_gguf", "dev": "mistral_gguf", "turbo": "qwen3_4b_gguf"
    }  # fmt: skip
    vaes = {BaseModelType.Flux2: "flux2_vae", BaseModelType.ZImage: "z_image_vae"}
    mains = [entry for entry in CONTENT.models if entry.base in vaes and entry.type is ModelType.Main]
    for entry in mains:
        needed = {encoders[entry.variant], vaes[entry.base]} if entry.format is not ModelFormat.Diffusers else set()
        assert set(entry.needs) == needed, entry.name
    assert {entry.base for entry in mains} == vaes.keys()
    assert {entry.variant for entry in mains} == {*encoders, "zbase"}


def test_missing_parts_are_starter_models() -> None:
    """The messages about missing parts name sources that the starter models have."""
    named = [kind.source for kind in flux2_parts._ENCODERS.values()]
    named += [flux2_parts._VAE_SOURCE, z_image_parts._ENCODER_SOURCE, z_image_parts._VAE_SOURCE]
    assert set(named) <= {entry.source for entry in CONTENT.models}


@pytest.mark.parametrize("base", BUNDLES)
def test_bundles_are_complete(base: str) -> None:
    names = BUNDLES[base]
    mains = [name for name in names if IDS[name].type is ModelType.Main]
    assert mains
    needed = {part for name in names for part in IDS[name].needs}
    assert needed <= set(names)
    assert {IDS[name].base for name in set(names) - needed} <= {base, BaseModelType.Any}


def test_flux_starters_cover_what_its_nodes_use() -> None:
    flux = [entry for entry in CONTENT.models if entry.base is BaseModelType.Flux]
    assert {entry.variant for entry in flux if entry.type is ModelType.Main} == {"dev", "schnell", "dev_fill"}
    adapters = (ModelType.ControlNet, ModelType.ControlLoRa, ModelType.IPAdapter, ModelType.FluxRedux, ModelType.VAE)
    assert {*adapters, ModelType.Main} == {entry.type for entry in flux}


def test_the_repository_of_clip_is_a_text_encoder_or_an_image_encoder_as_stated(tmp_path: Path) -> None:
    """Its folder has both; without a type, the image encoder takes precedence."""
    config = '{"architectures": ["CLIPModel"], "text_config": {"hidden_size": 768}, "vision_config": {}}'
    (tmp_path / "config.json").write_text(config)
    facts = {
        "key": "a",
        "hash": "blake3:0",
        "path": "a",
        "file_size": 1,
        "name": "a",
        "source": "a",
        "source_type": "path",
    }
    for name in ("clip_l", "clip_vision_l"):
        entry = IDS[name]
        stated = {"type": entry.type, "base": entry.base, "format": entry.format}
        record = identify(ModelFiles(tmp_path), facts, stated, allow_unknown=False)
        assert (record.type, getattr(record, "variant", "large")) == (entry.type, "large")
