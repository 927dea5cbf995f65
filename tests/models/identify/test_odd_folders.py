"""Folders of every kind whose configuration has values of other types: each is identified or refused with a reason."""

import pytest

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.identify import identify
from tests.models.identify.folders import FOLDERS

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}
CLASS_FIELDS = ("_class_name", "architectures", "weight_map")


def replaced(content, value):
    return {name: kept if name in CLASS_FIELDS else value for name, kept in content.items()}


@pytest.mark.parametrize("row", FOLDERS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_values_of_other_types(make, row):
    for value in ([], "x", {"a": [1]}, -1.5):
        for name, content in row[2].items():
            if name.endswith(".safetensors"):
                make.header(f"a/{name}", {"x": (1,)})
            else:
                make.json(f"a/{name}", replaced(content, value))
        try:
            identify(ModelFiles(make.folder / "a"), FACTS, {}, allow_unknown=True)
        except InvalidModel as error:
            assert str(error).startswith(("a ", "config.json"))  # noqa: PT017
