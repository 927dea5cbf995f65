"""The list of starter models: the format of the file, and the responses about it."""

import pytest

from invokeclone.models.identify import registry
from invokeclone.models.install.jobs import HFModelSource, URLModelSource, parse_source
from invokeclone.models.records import starters
from invokeclone.models.records.schemas import ModelRecordChanges
from invokeclone.models.records.starters import InstalledModel
from tests.models.conftest import wait_for_end

ENTRIES = starters._load_files().models
IDS = {entry.id: entry for entry in ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_entry_has_a_valid_source_and_kind(entry):
    source = parse_source(entry.source, inplace=False, access_token=None)
    assert isinstance(source, HFModelSource | URLModelSource)
    assert str(source) == entry.source, "a record that is installed from it would have another source"
    kinds = [registry.tag_fields(config) for config in registry.config_classes()]
    candidates = [kind for kind in kinds if (kind["type"], kind["base"]) == (entry.type, entry.base)]
    assert candidates
    assert entry.format in {None, *(kind["format"] for kind in candidates)}
    assert entry.description.endswith(("GB.", "MB.", "KB."))
    assert not entry.is_installed


def test_entries_are_unique_and_references_resolve():
    assert len(IDS) == len({(entry.source, entry.type) for entry in ENTRIES}) == len(ENTRIES)
    assert len({(entry.name, entry.base, entry.type) for entry in ENTRIES}) == len(ENTRIES)
    assert all(needed in IDS for entry in ENTRIES for needed in entry.needs)
    assert not any(IDS[needed].needs for entry in ENTRIES for needed in entry.needs), "dependencies aren't nested"
    for bundle in starters._load_files().bundles.values():
        assert bundle.models
        assert all(name in IDS for name in bundle.models)


def test_no_starter_is_installed_initially():
    answer = starters.list_starters([])
    assert [model.name for model in answer.starter_models] == [entry.name for entry in ENTRIES]
    assert not any(model.is_installed for model in answer.starter_models)
    flux = next(model for model in answer.starter_models if model.name == "FLUX.1 schnell")
    assert [model.name for model in flux.dependencies] == [IDS[name].name for name in ("t5", "clip_l", "flux_vae")]
    assert {"sd-1", "sdxl", "flux", "z-image"} <= set(answer.starter_bundles)


def test_a_starter_is_installed_by_source_or_by_name_and_kind():
    by_source = InstalledModel(IDS["t5"].source, "renamed", "any", "t5_encoder")
    by_name = InstalledModel("/somewhere", IDS["clip_l"].name, "any", "clip_embed")
    other_kind = InstalledModel("/elsewhere", IDS["flux_vae"].name, "flux", "main")
    answer = starters.list_starters([by_source, by_name, other_kind])
    models_by_name = {model.name: model for model in answer.starter_models}
    assert {name for name, model in models_by_name.items() if model.is_installed} == {
        IDS["t5"].name,
        IDS["clip_l"].name,
    }
    text_encoder = InstalledModel(IDS["clip_l"].source, "renamed", "any", "clip_embed")
    installed = [model.name for model in starters.list_starters([text_encoder]).starter_models if model.is_installed]
    assert installed == [IDS["clip_l"].name], "the image encoder is in the same repository"
    assert [model.name for model in models_by_name["FLUX.1 schnell"].dependencies] == [IDS["flux_vae"].name]
    bundled = {model.name: model.is_installed for model in answer.starter_bundles["flux"].models}
    assert bundled[IDS["clip_l"].name] is True


def test_previous_names_are_recognized():
    entry = IDS["sd15"].model_copy(update={"previous_names": ["stable-diffusion-v1-5"]})
    other = starters._load_files().model_copy(update={"models": [entry], "bundles": {}})
    (model,) = starters.list_starters(
        [InstalledModel("x", "stable-diffusion-v1-5", "sd-1", "main")], other
    ).starter_models
    assert model.is_installed


async def test_the_route_reports_installed_starters(client, installer, make):
    name = IDS["sd_vae"].name
    await wait_for_end(await installer.add(str(make.vae()), ModelRecordChanges(name=name), inplace=True))
    body = (await client.get("/starter_models")).json()
    assert [model["name"] for model in body["starter_models"] if model["is_installed"]] == [name]
