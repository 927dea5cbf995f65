"""Files in GGUF's and torch's own form: what they declare, and hostile or damaged ones."""

import pickle
import struct
import zipfile

import pytest

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles, read_header
from invokeclone.models.files.tensors import Tensor


def test_gguf_shapes_are_in_torch_order_with_string_metadata(make):
    tensors, notes = read_header(make.gguf("a.gguf", {"x.weight": (3, 512)}, **{"general.architecture": "flux"}))
    assert tensors == {"x.weight": Tensor("Q4_K", (3, 512))}
    assert notes == {"general.architecture": "flux", "list": "[1, 2]"}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(20),
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 4, 2**61),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 77),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"t" + struct.pack("<I", 2**31),
    ],
)
def test_damaged_gguf_is_refused(tmp_path, damage):
    path = tmp_path / "a.gguf"
    path.write_bytes(damage)
    with pytest.raises(InvalidModel, match="GGUF"):
        ModelFiles(path).check()


def test_a_truncated_gguf_file_is_detected(make):
    path = make.gguf("a.gguf", {"x": (1024, 1024)})
    with path.open("rb+") as file:
        file.truncate(200)
    with pytest.raises(InvalidModel, match="truncated"):
        ModelFiles(path).check()


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_declare_tensors_under_their_wrapper(make, zipped):
    content = {"state_dict": {"a": (2, 3), "b": {"c": (4,)}}, "epoch": 7, "name": "x"}
    tensors, notes = read_header(make.pickle("a.ckpt", content, zipped=zipped))
    assert tensors == {"a": Tensor("F16", (2, 3)), "b.c": Tensor("F16", (4,))}
    assert notes == {"epoch": "7", "name": "x"}


def test_a_pickle_that_references_a_function_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    order = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    plain, zipped = tmp_path / "a.pt", tmp_path / "b.ckpt"
    plain.write_bytes(b"".join(pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, {})) + order)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", order)
    for path in (plain, zipped):
        with pytest.raises(InvalidModel, match=r"os\.system"):
            ModelFiles(path).check()
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"", b".", b"\x80\x02}.", b"\x80\x02K\x05.", b"\x80\x02" + b"(" * 5000 + b".", b"\x80\x04\x96" + struct.pack("<Q", 2**62) + b".",
        pickle.dumps([1, 2]), b"PK\x03\x04 and nothing more", b"\x80\x02r\xff\xff\xff\x7f.",
    ],
)  # fmt: skip
def test_files_not_written_by_torch_are_refused(tmp_path, data):
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match="pickle"):
        ModelFiles(path).check()


def test_a_zip_without_tensors_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(InvalidModel, match="without tensors"):
        ModelFiles(path).check()


def test_endlessly_nested_mappings_are_not_followed(make):
    """Each level holds the next one twice: all paths together would be without number."""
    level: dict = {"x": (1,)}
    for _ in range(12):
        level = {"a": level, "b": level}
    assert read_header(make.pickle("a.pt", level))[0] == {}
