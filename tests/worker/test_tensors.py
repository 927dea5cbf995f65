"""The tensor store: copies in, copies out, disk when memory is short, letting go. Needs torch."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from invokeclone.worker.process import own_folder
from invokeclone.worker.tensors import StoredObjectNotFound, TensorStore

torch = pytest.importorskip("torch")


@dataclass
class Basic:
    """Like a text conditioning."""

    embeds: object
    note: str = "n"


@dataclass
class Data:
    """Like ConditioningFieldData."""

    conditionings: list[Basic]
    mask: object | None = None


def test_load_returns_a_copy_of_the_saved_tensor(tmp_path: Path) -> None:
    store = TensorStore(tmp_path / "t", 1000)
    tensor = torch.arange(4.0)
    name = store.save(tensor, "Tensor")
    assert name.startswith("Tensor_")
    tensor[0] = 9
    loaded = store.load(name)
    assert loaded.tolist() == [0, 1, 2, 3]
    loaded[0] = 7
    assert store.load(name).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "bool", "int64", "uint8"])
def test_oldest_tensors_over_budget_are_stored_on_disk_unchanged(tmp_path: Path, dtype: str) -> None:
    store = TensorStore(tmp_path / "t", 100)
    tensors = [(torch.arange(64).reshape(8, 8) % (index + 2)).to(getattr(torch, dtype)).T for index in range(4)]
    names = [store.save(tensor, "Tensor") for tensor in tensors]
    assert list((tmp_path / "t").iterdir())
    for name, tensor in zip(names, tensors, strict=True):
        loaded = store.load(name)
        assert loaded.dtype == tensor.dtype
        assert torch.equal(loaded, tensor)


def test_objects_around_tensors_survive_the_disk_without_being_written(tmp_path: Path) -> None:
    store = TensorStore(tmp_path / "t", 0)
    name = store.save(Data([Basic(torch.ones(3)), Basic(torch.zeros(2), "m")], None), "ConditioningFieldData")
    store.save(torch.ones(1), "Tensor")
    files = list((tmp_path / "t").iterdir())
    assert [file.name for file in files] == [f"{name}.safetensors"]
    loaded = store.load(name)
    assert isinstance(loaded, Data)
    assert [part.note for part in loaded.conditionings] == ["n", "m"]
    assert loaded.conditionings[0].embeds.tolist() == [1, 1, 1]


def test_unreferenced_tensors_are_deleted_with_their_files(tmp_path: Path) -> None:
    store = TensorStore(tmp_path / "t", 0)
    first, second, third = (store.save(torch.ones(5), "Tensor") for _ in range(3))
    assert store.keep_only(lambda name: name == third) == 2
    assert not list((tmp_path / "t").iterdir())
    assert len(store) == 1
    assert store.size == 20
    for name in (first, second):
        with pytest.raises(StoredObjectNotFound):
            store.load(name)
    store.close()
    assert not (tmp_path / "t").exists()


def test_failed_disk_write_keeps_the_tensor_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = TensorStore(tmp_path / "file", 0)
    names = [store.save(torch.full((2,), float(index)), "Tensor") for index in range(2)]
    assert [store.load(name).tolist() for name in names] == [[0, 0], [1, 1]]


def test_only_folders_of_ended_workers_of_the_device_are_removed(tmp_path: Path) -> None:
    kept = ["worker-cuda-1-99999999", "worker-cuda-mine", f"worker-cuda-{os.getppid()}"]
    for name in ("worker-cuda-99999999", *kept):
        (tmp_path / name).mkdir()
    assert own_folder(tmp_path, "cuda") == tmp_path / f"worker-cuda-{os.getpid()}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
