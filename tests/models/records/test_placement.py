"""Renaming into the models folder, and removing from it: whole or not at all, and never what isn't ours."""

import os
from pathlib import Path

import pytest

from invokeclone.models.errors import DuplicateModelException, RefusedModel
from invokeclone.models.records import placement


@pytest.fixture
def models(tmp_path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_recorded_paths(models, tmp_path):
    assert placement.to_record_path(models, models / "key/a b.safetensors") == "key/a b.safetensors"
    assert placement.to_record_path(models, tmp_path / "x") == (tmp_path / "x").as_posix()
    assert placement.to_absolute_path(models, "key/a") == models / "key/a"
    assert placement.to_absolute_path(models, "/elsewhere/a") == Path("/elsewhere/a")


def test_a_file_moves_into_its_folder(models, make):
    source = make.checkpoint("my model.safetensors")
    data = source.read_bytes()
    assert placement.move_in(models, source, "k") == models / "k/my model.safetensors"
    assert (models / "k/my model.safetensors").read_bytes() == data
    assert not source.exists()


def test_a_folders_contents_move_and_come_back(models, make):
    source = make.pipeline()
    before = names(source)
    placed = placement.move_in(models, source, "k")
    assert placed == models / "k"
    assert names(placed) == before
    assert not source.exists()
    placement.move_back(models, placed, source, "k")
    assert names(source) == before
    assert names(models) == []


def test_a_file_comes_back(models, make):
    source = make.checkpoint()
    placement.move_back(models, placement.move_in(models, source, "k"), source, "k")
    assert source.is_file()
    assert names(models) == []


def test_an_existing_entry_with_the_key_is_not_modified(models, make):
    (models / "k").mkdir()
    source = make.checkpoint()
    with pytest.raises(DuplicateModelException):
        placement.move_in(models, source, "k")
    assert source.exists()


def test_partial_copies_are_removed(models):
    other = f".copying_{os.getppid()}_k"
    for half in (f".copying_{os.getpid()}_k", ".copying_99999999_k", ".copying_k", other, "keep"):
        (models / half).mkdir()
        (models / half / "x").touch()
    placement.remove_abandoned_copies(models)
    assert names(models) == [other, f"{other}/x", "keep", "keep/x"]


def test_moving_must_not_take_other_models_along(models, make, tmp_path):
    folder = make.pipeline()
    inside = folder / "unet"
    placement.check_movable(folder, [folder, tmp_path / "other"], [tmp_path / "package"])
    for source, model_paths, protected in [
        (folder, [inside], []),
        (inside, [folder], []),
        (folder, [], [inside]),
        (inside, [], [folder]),
    ]:
        with pytest.raises(RefusedModel):
            placement.check_movable(source, model_paths, protected)


def test_a_folder_that_contains_the_models_folder_is_refused(models, tmp_path):
    for source in (tmp_path, models):
        with pytest.raises(RefusedModel, match="contains the models folder"):
            placement.check_copyable(models, source)
    placement.check_copyable(models, tmp_path / "other")


def test_removing_takes_the_models_own_folder(models):
    (models / "k").mkdir()
    (models / "k/a.safetensors").touch()
    (models / "k/a.json").touch()
    placement.remove(models, models / "k/a.safetensors", "k", [], [])
    assert names(models) == []


def test_removing_takes_one_file_of_the_old_layout(models):
    (models / "sd-1/main").mkdir(parents=True)
    for name in ("a", "b"):
        (models / f"sd-1/main/{name}.safetensors").touch()
    placement.remove(models, models / "sd-1/main/a.safetensors", "k", [models / "sd-1/main/b.safetensors"], [])
    assert names(models) == ["sd-1", "sd-1/main", "sd-1/main/b.safetensors"]


@pytest.mark.parametrize(
    "recorded",
    [
        "",
        ".",
        "..",
        "a/..",
        "a/../..",
        "model_images",
        "../outside",
        "k2",
        "k2/other.safetensors/unet",
        "protected",
        "protected/x",
    ],
)
def test_removing_never_deletes_other_files(models, tmp_path, recorded):
    for name in ("outside", "models/model_images", "models/a", "models/k2", "models/protected/x"):
        (tmp_path / name).mkdir(parents=True)
    before = names(tmp_path)
    placement.remove(models, models / recorded, "k", [models / "k2/other.safetensors"], [models / "protected"])
    assert names(tmp_path) == before


def test_removing_a_symlink_keeps_its_target(models, make):
    source = make.checkpoint()
    (models / "k").mkdir()
    (models / "k/a.safetensors").symlink_to(source)
    placement.remove(models, models / "k/a.safetensors", "k", [], [])
    assert names(models) == []
    assert source.exists()
