"""The table of forms in docs/models.md: what it lists is installed, stays quantized, and computes what the original does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from invokeclone.engine.loading import loaders
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.quantized.packed import PackedLinear
from invokeclone.kit.config.settings import Settings
from invokeclone.models.errors import InvalidModel, InvalidModelRecord
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.identify import identify
from tests.quantized_forms import FULL, GGUF, NF4, SCALED, SDNQ, TARGETS, TOLERANCES

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "tiny", "source": "s", "source_type": "path"}
LAYOUTS = ("file", "folder")


def table() -> dict[tuple[str, str, str], bool]:
    """Return whether the document says that a form of a network loads, by form, network and layout."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| form | FLUX.1 |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:] if line]
    header, *rows = rows[: next(n for n, row in enumerate(rows) if len(row) != len(rows[0]))]
    return {
        (row[0], target, layout): layout in cell.split(", ")
        for row in rows[1:]
        for target, cell in zip(header[1:], row[1:], strict=True)
        for layout in LAYOUTS
    }


TABLE = table()
LISTED = [cell for cell, is_listed in TABLE.items() if is_listed]
QUICK = [
    cell
    for cell in LISTED
    if cell[1:] == ("FLUX.1", "file")
    or cell in ((SDNQ, "Qwen3", "folder"), (NF4, "T5", "folder"), (SCALED, "T5", "file"))
]
"""Every form once, and folders; the others are slow."""


@pytest.fixture(scope="module")
def originals() -> dict[str, Any]:
    """Return networks made once."""
    return {}


def original_of(originals: dict[str, Any], target: str) -> Any:
    if target not in originals:
        model = TARGETS[target].make()
        originals[target] = model, TARGETS[target].run(model)
    return originals[target]


def check(form: str, target: str, layout: str, originals: dict[str, Any], folder: Path) -> None:
    network = TARGETS[target]
    model, expected = original_of(originals, target)
    path = network.write(form, layout, model, folder)
    record = identify(ModelFiles(path), FACTS, network.stated(form, layout), allow_unknown=False)
    request = LoadRequest(
        record, path, network.part, torch.float32, torch.device("cpu"), Settings(root=folder, precision="float32")
    )
    loaded = loaders.find(record)(request)
    assert_weights(loaded, getattr(model, "model", model), form)
    error = (network.run(loaded) - expected).norm() / expected.norm()
    assert error < 3 * TOLERANCES[form] + 0.03, float(error)  # networks compute in bfloat16


def assert_weights(loaded: nn.Module, model: nn.Module, form: str) -> None:
    """Compare each linear layer, and count those that are packed: rows of NF4 may be no whole blocks."""
    packed = 0
    for path, linear in model.named_modules():
        if isinstance(linear, nn.Linear):
            layer = loaded.get_submodule(path)
            packed += isinstance(layer, PackedLinear)
            weight = layer.dense_weight() if isinstance(layer, PackedLinear) else layer.weight.float()
            error = (weight - linear.weight).norm() / linear.weight.norm()
            assert error < TOLERANCES[form], (path, float(error))
    wide = [module for module in model.modules() if isinstance(module, nn.Linear) and module.in_features % 64 == 0]
    assert bool(packed) == (form != FULL and (form != NF4 or bool(wide)))


@pytest.mark.parametrize(("form", "target", "layout"), QUICK)
def test_forms(form: str, target: str, layout: str, originals: dict[str, Any], tmp_path: Path) -> None:
    check(form, target, layout, originals, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "target", "layout"), [cell for cell in LISTED if cell not in QUICK])
def test_all_cells(form: str, target: str, layout: str, originals: dict[str, Any], tmp_path: Path) -> None:
    check(form, target, layout, originals, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "target", "layout"),
    [(*cell[:2], cell[2]) for cell in TABLE if not TABLE[cell] and cell[::2] != (GGUF, "folder")],
)
def test_what_is_not_listed_is_refused(
    form: str, target: str, layout: str, originals: dict[str, Any], tmp_path: Path
) -> None:
    path = TARGETS[target].write(form, layout, original_of(originals, target)[0], tmp_path)
    with pytest.raises((InvalidModel, InvalidModelRecord)):
        identify(ModelFiles(path), FACTS, TARGETS[target].stated(form, layout), allow_unknown=False)


def test_the_table_is_complete() -> None:
    assert {cell[0] for cell in TABLE} == TOLERANCES.keys()
    assert {cell[1] for cell in TABLE} == TARGETS.keys()
