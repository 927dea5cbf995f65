"""`invokeclone models install` of local files: one model, or a folder of many."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from invokeclone.cli.main import main
from invokeclone.kit.files import copies
from tests.models.conftest import Make

Run = Callable[..., int]
LORA = {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return Make(tmp_path / "my models")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda source, *flags: main(["models", "install", str(source), *flags, "--root", str(tmp_path / "root")])


def installed(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "models").glob("*/*"))


def test_a_folder_of_many_files(
    run: Run, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        make.tensors(f"loras/{name}.safetensors", LORA)
    make.checkpoint("checkpoints/main.safetensors")
    make.pipeline("diffusers/pipeline")
    (make.folder / "readme.txt").write_text("x")
    (make.folder / "broken.safetensors").write_bytes(b"x")
    before = sorted(make.folder.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert run("my models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 installed, 0 already there, 1 not a model, 0 failed"
    assert sum(line.startswith("installed ") for line in lines) == 4
    (broken,) = [line for line in lines if line.startswith("not a model: ")]
    assert str(make.folder / "broken.safetensors") in broken
    assert sorted(make.folder.rglob("*")) == before
    assert run(make.folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 installed, 4 already there, 1 not a model, 0 failed"
    assert {"a.safetensors", "b.safetensors", "main.safetensors"} <= set(installed(tmp_path / "root"))


def test_a_failure_sets_the_exit_code_and_the_others_are_installed(
    run: Run, make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        make.tensors(f"{name}.safetensors", LORA)
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        if target.name == "a.safetensors":
            raise FileExistsError(17, "File exists", str(target))
        link(source, target)

    monkeypatch.setattr(copies, "clone", lambda *_paths: False)
    monkeypatch.setattr(os, "link", refuse)
    assert run(make.folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 installed, 0 already there, 0 not a model, 1 failed"
    assert [line for line in lines if line.startswith("failed: ") and "File exists" in line]


@pytest.mark.parametrize(("flag", "stays", "copied"), [("--move", False, 1), ("--inplace", True, 0)])
def test_move_and_inplace(run: Run, make: Make, tmp_path: Path, flag: str, stays: bool, copied: int) -> None:
    path = make.checkpoint()
    assert run(path, flag) == 0
    assert (path.exists(), len(installed(tmp_path / "root"))) == (stays, copied)


def test_move_and_inplace_exclude_each_other(run: Run, make: Make) -> None:
    with pytest.raises(SystemExit) as exit_status:
        run(make.checkpoint(), "--move", "--inplace")
    assert exit_status.value.code == 2


def test_one_source(run: Run, make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make.checkpoint()
    assert run(path) == 0
    assert capsys.readouterr().out.startswith("installed model (sd-1 main): ")
    assert run(path) == 0
    assert capsys.readouterr().out.startswith(f"already there: {path}: ")
    (make.folder / "notes.txt").write_text("x")
    assert run(make.folder / "notes.txt") == 1
    assert "not installed: notes.txt is not a model file" in capsys.readouterr().err
    (make.folder / "empty").mkdir()
    assert run(make.folder / "empty") == 1
    assert "there are no models in" in capsys.readouterr().err
