"""Settings that change at run time: what is accepted can be read and started from, what is not leaves the file as it was."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import FIELDS, FILE, load_settings
from invokeclone.kit.errors import InvokeCloneError, Unprocessable
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.server import live_config
from invokeclone.server.app import create_app
from invokeclone.server.supervision import hardware

VALUES = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**30, -(10**30), 2**63 - 1, 2**64, 0, 1, 65_536])
    | st.floats() | st.text() | st.text(st.characters(), min_size=200, max_size=400).map(lambda text: text * 30)
    | st.sampled_from(["\0", "\ud800", "auto", "cpu", "null", "~", "a: b", "#", "x\ny", "/proc/1/x", "../..", "a" * 300])
    | st.lists(st.text(max_size=5) | st.integers() | st.lists(st.none(), max_size=1), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.none() | st.integers(), max_size=2)
)  # fmt: skip


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.sampled_from(sorted(FIELDS)), value=VALUES)
def test_every_change_is_refused_or_loadable_at_startup(tmp_path: Path, name: str, value: Any) -> None:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    (root / FILE).write_text("port: 4000\n")
    resources = Resources(Settings(root=root, port=4000), SqliteDatabase(None), None)  # type: ignore[arg-type]
    try:
        live_config.change(resources, {name: value})
    except InvokeCloneError as error:
        assert error.status == 422  # noqa: PT017  (both ends of one property)
        assert str(error).encode()  # noqa: PT017
        assert (root / FILE).read_text() == "port: 4000\n"
        assert resources.settings == Settings(root=root, port=4000)
        return
    fresh, unknown = load_settings(root, {})
    assert [line for line in unknown if f"{name}: has no effect" not in line] == []
    assert getattr(fresh, name) == getattr(resources.settings, name)
    assert isinstance(create_app(fresh, worker_command=None), FastAPI)
    Settings(**fresh.to_worker())


@pytest.mark.parametrize(
    "given_values",
    [
        {"max_queue_history": 10**30}, {"max_queue_size": 2**63}, {"port": 70_000}, {"port": -1}, {"pil_compress_level": 10},
        {"node_cache_size": -1}, {"max_cache_ram_gb": float("inf")}, {"device_working_mem_gb": float("nan")},
        {"profile_prefix": "\ud800"}, {"profile_prefix": "a\0"}, {"outputs_dir": "x" * 300},
        {"generation_devices": [[]]}, {"generation_devices": []}, {"remote_api_tokens": [{"url_regex": "x", "token": "\0"}]},
    ],
)  # fmt: skip
def test_a_setting_that_the_server_cannot_run_with_is_refused(tmp_path: Path, given_values: dict[str, Any]) -> None:
    resources = Resources(Settings(root=tmp_path), SqliteDatabase(None), None)  # type: ignore[arg-type]
    with pytest.raises(Unprocessable):
        live_config.change(resources, given_values)
    assert list(tmp_path.iterdir()) == []


def test_a_settings_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("port: 4000\n")
    (tmp_path / "root" / FILE).symlink_to("../own/mine.yaml")
    resources = Resources(Settings(root=tmp_path / "root", port=4000), SqliteDatabase(None), None)  # type: ignore[arg-type]
    live_config.change(resources, {"max_queue_history": 7})
    assert (tmp_path / "root" / FILE).is_symlink()
    assert "max_queue_history: 7" in (tmp_path / "own" / "mine.yaml").read_text()


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    resources = Resources(Settings(root=tmp_path), SqliteDatabase(None), None)  # type: ignore[arg-type]
    with pytest.raises(Unprocessable, match="models_dir: the folder file/models cannot be created"):
        live_config.change(resources, {"models_dir": "file/models"})


def test_devices_are_known_before_a_worker_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, model in enumerate(("NVIDIA H200", "NVIDIA L4")):
        (tmp_path / f"0000:0{number}").mkdir()
        (tmp_path / f"0000:0{number}" / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    monkeypatch.setattr(hardware, "NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices = hardware.devices()
    assert [device["device"] for device in devices if device["device"] != "mps"] == ["cuda:0", "cuda:1", "cpu"]
    assert [device["name"] for device in devices[:2]] == ["NVIDIA H200", "NVIDIA L4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert hardware.devices()[0] == {"device": "cuda:0", "name": "NVIDIA L4"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.devices()[-1] == {"device": "cpu", "name": "CPU"}
    assert not any(device["device"].startswith("cuda") for device in hardware.devices())
