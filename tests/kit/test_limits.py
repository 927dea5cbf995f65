"""The limits: their table, their place among the settings, their way to a worker."""

from pathlib import Path

import pytest

from invokeclone.kit.config.limits import Limits, table
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import SettingsError, load_settings

PAGE = Path(__file__).parent.parent.parent / "docs" / "limits.md"


def test_the_docs_page_lists_every_limit() -> None:
    assert table() in PAGE.read_text(), "run `make docs`"
    assert table().count("\n| `") == len(Limits.model_fields)


def test_limits_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "invokeai.yaml").write_text("limits:\n  graph_nodes: 5\n")
    assert load_settings(tmp_path, {})[0].limits == Limits(graph_nodes=5)
    assert load_settings(tmp_path, {"INVOKEAI_LIMITS": "{presets: 7}"})[0].limits == Limits(presets=7)


@pytest.mark.parametrize(
    "text", ["limits: {graph_nodes: 0}", "limits: {nodes: 1}", "limits: 7", "limits: {json_depth: 10000}"]
)
def test_a_wrong_limit_gets_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "invokeai.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, {})
    assert len(caught.value.lines) == 1
    assert "limits" in caught.value.lines[0]


def test_limits_reach_a_worker() -> None:
    assert Settings(**Settings(limits=Limits(graph_nodes=5)).to_worker()).limits.graph_nodes == 5
