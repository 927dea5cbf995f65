"""Weight files with changed, cut and inserted bytes: each is read or refused with a reason, in bounded memory and steps."""

import contextlib
import io
import json
import math
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import gguf, pickles, unpickler
from invokeclone.models.files.model_files import ModelFiles, read_header
from invokeclone.models.files.tensors import Tensor
from invokeclone.models.identify.identify import identify
from tests.models.conftest import Make, pickle_program

FUZZ = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MAX_MEMORY = 64 * 1024 * 1024
"""Bytes that reading a file of a few kilobytes may take at its peak."""
FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "source": "x", "source_type": "path", "name": "n"}
HUGE = [2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -1, -(2**63)]


@st.composite
def mutate(draw: st.DrawFn, original: bytes) -> bytes:
    """Return `original` with some bytes replaced, inserted, taken out or cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["replace", "insert", "remove", "cut", "number"])):
            case "replace":
                data[position : position + 1] = bytes([draw(st.integers(0, 255))])
            case "insert":
                data[position:position] = draw(st.binary(min_size=1, max_size=8))
            case "remove":
                del data[position : position + draw(st.integers(1, 8))]
            case "cut":
                del data[position:]
            case "number":
                number = draw(st.sampled_from(HUGE)) % 2**64
                data[position : position + 8] = struct.pack("<Q", number)
    return bytes(data)


def read_or_refuse(path: Path, data: bytes) -> None:
    """Identify a file; nothing but InvalidModel may come of it, and no large allocation."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        read_header(path)
    except InvalidModel:
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MAX_MEMORY
    identify(ModelFiles(path), FACTS, {}, allow_unknown=True)


SHAPES = {
    "model.diffusion_model.input_blocks.0.0.weight": (2, 4, 3, 3),
    "first_stage_model.decoder.conv_in.weight": (2, 4, 3, 3),
    "x": (256,),
}


@pytest.mark.parametrize("form", ["safetensors", "gguf", "zipped", "plain"])
@FUZZ
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(tmp_path: Path, form: str, data: st.DataObject) -> None:
    make = Make(tmp_path)
    path = {
        "safetensors": lambda: make.header("a.safetensors", SHAPES, author="x"),
        "gguf": lambda: make.gguf("a.gguf", SHAPES, **{"general.architecture": "flux"}),
        "zipped": lambda: make.pickle("a.ckpt", {"state_dict": SHAPES, "epoch": 1}),
        "plain": lambda: make.pickle("a.pt", {"state_dict": SHAPES, "epoch": 1}, zipped=False),
    }[form]()
    read_or_refuse(path, data.draw(mutate(path.read_bytes())))


NUMBER = st.one_of(
    st.sampled_from(HUGE), st.integers(-3, 40), st.none(), st.booleans(), st.floats(), st.text(max_size=2)
)
ENTRY = st.one_of(
    NUMBER,
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.one_of(st.sampled_from(["F16", "BF16", "F4", "U8", "what"]), NUMBER),
            "shape": st.one_of(st.lists(NUMBER, max_size=20), NUMBER),
            "data_offsets": st.one_of(st.lists(NUMBER, max_size=3), NUMBER),
        },
    ),
)


@FUZZ
@given(
    entries=st.dictionaries(st.sampled_from(["a", "b", "__metadata__", "lora_unet.x"]), ENTRY), size=st.integers(0, 64)
)
def test_any_safetensors_header_is_read_or_refused(tmp_path: Path, entries: dict[str, Any], size: int) -> None:
    text = json.dumps(entries).encode()
    read_or_refuse(tmp_path / "a.safetensors", struct.pack("<Q", len(text)) + text + bytes(size))


def safetensors(path: Path, text: str, size: int) -> Path:
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(size))
    return path


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("entries", "size", "reason"),
    [
        ({"a": tensor([2], 0, 4), "b": tensor([2], 2, 6)}, 6, "overlaps"),
        ({"a": tensor([2], 0, 4), "b": tensor([2], 0, 4)}, 4, "overlaps"),
        ({"a": tensor([2], 4, 8)}, 8, "gap"),
        ({"a": tensor([2], 0, 4)}, 9, "to no tensor"),
        ({"a": tensor([2], 0, 4)}, 3, "truncated"),
        ({"a": tensor([3], 0, 4)}, 4, "4 bytes"),
        ({"a": tensor([-2], 4, 0)}, 4, "no valid dtype, shape or offsets"),
        ({"a": tensor([-1, -2], 0, 4)}, 4, "no valid dtype, shape or offsets"),
        ({"a": tensor([2**32, 2**32], 0, 0)}, 0, "0 bytes"),
        ({"a": tensor([2**33, 2**31], 0, 0)}, 0, "0 bytes"),
        ({"a": tensor([0], 2, 0)}, 2, "bytes"),
        ({"a": tensor([2], 0, 4) | {"shape": [True, True]}}, 4, "no valid dtype, shape or offsets"),
    ],
)
def test_offsets_and_shapes_must_describe_the_file(
    tmp_path: Path, entries: dict[str, Any], size: int, reason: str
) -> None:
    """Products are those of integers without end: 2^32 × 2^32 is not 0."""
    path = safetensors(tmp_path / "a.safetensors", json.dumps(entries), size)
    with pytest.raises(InvalidModel, match=reason):
        read_header(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}, "a": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}',
        '{"a": {"dtype": "U8", "dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}',
        "[" * 5000, "[]", "3", '{"a": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_duplicate_or_empty_header_keys_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidModel, match="damaged safetensors header"):
        read_header(safetensors(tmp_path / "a.safetensors", text, 0))


def gguf_file(
    path: Path, tensors: list[tuple[str, tuple[int, ...], int, int]], size: int, count: int | None = None
) -> Path:
    """Write tensors as (name, shape as GGUF has it, type, offset) and `size` bytes of data."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors) if count is None else count, 0)
    for name, shape, kind, offset in tensors:
        head += (
            struct.pack("<Q", len(name))
            + name.encode()
            + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        )
    path.write_bytes(head + bytes(-len(head) % 32 + size))
    return path


@pytest.mark.parametrize(
    ("tensors", "size", "reason"),
    [
        ([("a", (16,), 1, 0), ("b", (16,), 1, 0)], 64, "overlap"),
        ([("a", (32,), 1, 0), ("b", (16,), 1, 32)], 64, "overlap"),
        ([("a", (16,), 1, 0), ("a", (16,), 1, 32)], 64, "same name"),
        ([("a", (16,), 1, 32)], 32, "truncated"),
        ([("a", (16,), 1, 2**63)], 32, "truncated"),
        ([("a", (16,), 1, 8)], 64, "multiple of 32"),
        ([("a", (2**32, 2**32), 0, 0)], 64, "truncated"),
        ([("a", (2**62, 4), 1, 0)], 64, "truncated"),
        ([("a", (31,), 2, 0)], 64, "multiple of the block size"),
        ([("a", (256, 2), 12, 0)], 256, "truncated"),
        ([("a", (2**40,), 99, 0)], 64, "truncated"),
    ],
)
def test_gguf_tensors_must_lie_in_the_file(tmp_path: Path, tensors: list[Any], size: int, reason: str) -> None:
    with pytest.raises(InvalidModel, match=reason):
        read_header(gguf_file(tmp_path / "a.gguf", tensors, size))


def test_gguf_tensors_that_lie_in_the_file_are_read(tmp_path: Path) -> None:
    tensors = [("b", (256, 2), 12, 288), ("a", (256, 2), 12, 0), ("c", (3,), 0, 576)]
    header, _ = read_header(gguf_file(tmp_path / "a.gguf", tensors, 588))
    assert {name: entry.shape for name, entry in header.items()} == {"a": (2, 256), "b": (2, 256), "c": (3,)}


@pytest.mark.parametrize(
    ("kind", "name", "elements", "length"), [(9, "Q8_1", 32, 40), (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18)]
)
def test_gguf_dtypes_match_the_library(tmp_path: Path, kind: int, name: str, elements: int, length: int) -> None:
    tensors, _ = read_header(gguf_file(tmp_path / "a.gguf", [("x", (elements,), kind, 0)], length))
    assert tensors == {"x": Tensor(name, (elements,))}
    with pytest.raises(InvalidModel, match="truncated"):
        read_header(gguf_file(tmp_path / "b.gguf", [("x", (elements,), kind, 0)], length - 1))


def test_gguf_counts_are_limited(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "a.gguf", [], 4096, count=gguf._MAX_TENSORS + 1)
    with pytest.raises(InvalidModel, match="too many tensors"):
        read_header(path)
    lists = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**40)
    (tmp_path / "b.gguf").write_bytes(lists + bytes(4096))
    with pytest.raises(InvalidModel, match="too many values"):
        read_header(tmp_path / "b.gguf")


def plain(path: Path, program: bytes) -> Path:
    heads = (pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, {}))
    path.write_bytes(b"".join(heads) + program)
    return path


def write_archive(path: Path, program: bytes, storage: bytes = b"", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", storage)
    return path


@FUZZ
@given(
    code=st.lists(st.sampled_from([op.code.encode("latin-1") for op in pickletools.opcodes]), max_size=40),
    tail=st.binary(max_size=60),
)
def test_random_pickle_instructions_are_read_or_refused(tmp_path: Path, code: list[bytes], tail: bytes) -> None:
    read_or_refuse(
        plain(tmp_path / "a.pt", b"").with_name("b.pt"), plain(tmp_path / "a.pt", b"".join(code) + tail).read_bytes()
    )


NESTED = b")" + b"\x85" * 20_000
"""A tuple in a tuple in a tuple …: hashing or printing it would overflow the stack of the interpreter."""
SIZED = struct.pack("<Q", 2**40)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"}" + NESTED + b"K\x01s.", "not plain values"),
        (b"}(" + NESTED + b"K\x01u.", "not plain values"),
        (b"(" + NESTED + b"K\x01d.", "not plain values"),
        (b"ccollections\nOrderedDict\n((" + NESTED + b"K\x01\x86ltR.", "not plain values"),
        (b"ctorch.nn.modules.container\nParameterDict\n((" + NESTED + b"K\x01\x86ltR.", "argument"),
        (b"\x8f(" + NESTED + b"\x90.", "set"),
        (b"\x96" + SIZED + b"x.", "buffer"),
        (b"\x8e" + SIZED + b"x.", "cannot be read safely"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}\x8c\x0c__defaults__K\x01sb.", "attributes"),
        (b"ctorch.nn.modules.container\nParameterDict\nN}\x8c\x08__init__K\x01s\x86b.", "attributes"),
        (b"cposixpath\nexists\n.", "refers to posixpath.exists"),
        (b"\x8c\x05posix\x8c\x06system\x93.", "refers to posix.system"),
    ],
)  # fmt: skip
def test_hostile_pickle_instructions_are_refused(tmp_path: Path, program: bytes, reason: str) -> None:
    for path in (plain(tmp_path / "a.pt", program), write_archive(tmp_path / "b.pt", program)):
        with pytest.raises(InvalidModel, match=reason):
            read_header(path)
    assert unpickler.Unpickler._tensor.__defaults__ is None
    assert unpickler.PickledParameters() == {}


def test_pickle_instruction_count_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed file of a few kilobytes would else become gigabytes of empty lists; frames are no way around."""
    monkeypatch.setattr(unpickler, "MAX_INSTRUCTIONS", 1000)
    lists = b"(" + b"]" * 2000 + b"l."
    framed = b"\x80\x04\x95" + struct.pack("<Q", len(lists)) + lists
    for program in (lists, framed):
        path = write_archive(tmp_path / "a.pt", program, method=zipfile.ZIP_DEFLATED)
        with pytest.raises(InvalidModel, match="too many pickle instructions"):
            read_header(path)


def test_circular_mappings_are_followed_in_bounded_steps(tmp_path: Path) -> None:
    """1000 names for the same mapping of 1000 names, and so on: all paths together are 10^12."""
    names = b"".join(b"X" + struct.pack("<I", 4) + b"%04d" % number + b"h%c" for number in range(1000))
    program = b"}q\x00"
    for level in range(4):
        program += b"0}(" + names.replace(b"h%c", b"h" + bytes([level])) + b"uq" + bytes([level + 1])
    with pytest.raises(InvalidModel, match="too many tensors"):
        read_header(write_archive(tmp_path / "a.pt", program + b"."))


def number(value: int) -> bytes:
    """Return the pickle's instruction for a number of any size."""
    return pickle.dumps(value, 2)[2:-1]


def view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int) -> bytes:
    program = pickle_program({"a": (1,)}, 1)
    old = (
        pickle_program(1, 1)
        + b"tQ"
        + pickle_program(0, 1)
        + b"("
        + pickle_program(1, 1)
        + b"t("
        + pickle_program(1, 1)
        + b"t"
    )
    new = (
        number(count)
        + b"tQ"
        + number(offset)
        + b"".join(b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides))
    )
    assert old in program
    return b"\x80\x02" + program.replace(old, new) + b"."


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "count", "stored"),
    [
        ((5,), (1,), 0, 4, 8),
        ((4,), (1,), 1, 4, 8),
        ((2, 2), (4, 1), 0, 4, 8),
        ((10**9,), (0,), 0, 4, 8),
        ((2**32, 2**32), (1, 1), 0, 4, 8),
        ((-1,), (1,), 0, 4, 8),
        ((2,), (-1,), 0, 4, 8),
        ((2,), (1,), -1, 4, 8),
        ((4,), (1, 1), 0, 4, 8),
        ((4,), (1,), 0, 4, 7),
        ((4,), (1,), 0, 2**40, 8),
    ],
)
def test_tensors_must_lie_within_their_storage_and_the_file(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int, stored: int
) -> None:
    program = view(shape, strides, offset, count)
    with pytest.raises(InvalidModel, match=r"storage|shape|cut off"):
        pickles.read_content(write_archive(tmp_path / "a.pt", program, bytes(stored)))


def test_tensors_within_their_storage_are_located(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.pt", view((2, 2), (1, 2), 0, 4), b"12345678")
    content = pickles.read_content(path)
    extent = content.extents["0"]
    assert path.read_bytes()[extent.offset : extent.offset + extent.size] == b"12345678"
    assert (content.values["a"].shape, content.values["a"].strides) == ((2, 2), (1, 2))


def test_packed_tensors_and_long_lists_of_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_archive(tmp_path / "a.pt", view((4,), (1,), 0, 4), bytes(8), zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidModel, match="compressed"):
        pickles.read_content(path)
    monkeypatch.setattr(pickles, "MAX_DIRECTORY_BYTES", 50)
    with pytest.raises(InvalidModel, match="directory is too large"):
        pickles.read_content(path)


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", view((4,), (1,), 0, 4))
        archive.writestr("archive/data/0", bytes(8))
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(InvalidModel, match="byte order"):
        pickles.read_content(path)


def test_trainer_objects_beside_tensors_are_ignored(tmp_path: Path) -> None:
    """Published checkpoints of Stable Diffusion 1 have the class of a callback as a name, and NumPy's numbers."""
    callback = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    scalar = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR}bc_codecs\nencode\n(X\x01\x00\x00\x00ctRtR"
    program = view((4,), (1,), 0, 4)[:-2] + pickle_program("callbacks", 1) + b"}" + callback + scalar + b"su."
    content = pickles.read_content(write_archive(tmp_path / "a.pt", program, bytes(8)))
    assert content.values["a"].shape == (4,)
    assert read_header(tmp_path / "a.pt")[0] == {"a": Tensor("F16", (4,))}


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.sampled_from(["AutoencoderKL", "UNet2DConditionModel"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
CONFIG = st.dictionaries(
    st.sampled_from(
        ["_class_name", "architectures", "model_type", "latent_channels", "in_channels", "cross_attention_dim", "auto_map", "unet",
         "weight_map", "quantization_config", "prediction_type", "text_config", "vision_config", "hidden_size", "transformer"]
    ),
    JSON_VALUES,
)  # fmt: skip


@FUZZ
@given(
    config=CONFIG,
    name=st.sampled_from(
        [
            "config.json",
            "model_index.json",
            "unet/config.json",
            "scheduler/scheduler_config.json",
            "transformer/config.json",
        ]
    ),
)
def test_folders_with_any_settings_are_identified_or_refused(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    make = Make(tmp_path)
    folder = make.pipeline("model")
    make.json(f"model/{name}", config)
    with contextlib.suppress(InvalidModel):
        identify(ModelFiles(folder), FACTS, {}, allow_unknown=True)


def test_an_index_must_name_weights_of_its_own_folder(make: Make) -> None:
    """Libraries give files of other endings to torch.load, and follow paths to anywhere."""
    folder = make.vae_folder()
    for number, name in enumerate(["evil.bin", "../other.safetensors", "/etc/x.safetensors", "a\\..\\b.safetensors"]):
        for index in ("diffusion_pytorch_model.safetensors.index.json", f"model.safetensors.index.fp{number}.json"):
            path = make.json(f"{folder.name}/{index}", {"weight_map": {"x": name}})
            with pytest.raises(InvalidModel, match="safetensors file in the same folder"):
                ModelFiles(folder).check()
            path.unlink()
    ModelFiles(folder).check()


def test_the_limits_leave_room_for_real_models() -> None:
    """A whole Stable Diffusion XL checkpoint has 2515 tensors; its pickle is read far below the limits."""
    file = io.BytesIO(
        b"\x80\x02" + pickle_program({f"conditioner.embedders.{n}.weight": (8, 8) for n in range(2515)}, 64) + b"."
    )
    limited = unpickler.LimitedFile(file)
    assert len(unpickler.Unpickler(limited).load()) == 2515
    assert limited._reads * 20 < unpickler.MAX_INSTRUCTIONS
    assert math.prod([len(file.getvalue()), 20]) < unpickler.MAX_BYTES
