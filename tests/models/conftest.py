"""Tiny models written by hand, and an application with the room's routes only."""

import asyncio
import json
import logging
import math
import pickle
import struct
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from invokeclone.kit import log
from invokeclone.kit.errors import Unavailable
from invokeclone.kit.files import copies
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.workers import Workers
from invokeclone.models.api import router
from invokeclone.models.install.jobs import ModelInstallJob
from invokeclone.models.install.service import Installer
from invokeclone.models.records.schemas import ModelRecordChanges
from invokeclone.server.http import bodies
from invokeclone.server.http import errors as error_handlers

UNET = "model.diffusion_model.input_blocks"


class Make:
    """Writes models under a folder; every one has different weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def tensors(self, path: str, shapes: Mapping[str, tuple[int, ...]]) -> Path:
        self.count += 1
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: np.full(shape, self.count, np.float16) for name, shape in shapes.items()}, target)
        return target

    def header(self, path: str, shapes: dict[str, tuple[int, ...]], **notes: str) -> Path:
        """Write a safetensors file of any size that has a header and a hole."""
        target = self._place(path)
        entries, end = {}, 0
        for name, shape in shapes.items():
            start, end = end, end + 2 * math.prod(shape)
            entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(entries | ({"__metadata__": notes} if notes else {})).encode()
        with target.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        return target

    def gguf(self, path: str, shapes: dict[str, tuple[int, ...]], **facts: str) -> Path:
        """Write the same in GGUF's form."""
        text = lambda word: struct.pack("<Q", len(word)) + word.encode()  # noqa: E731
        head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(facts) + 1)
        head += text("list") + struct.pack("<IIQ", 9, 4, 2) + struct.pack("<II", 1, 2)
        head += b"".join(text(name) + struct.pack("<I", 8) + text(value) for name, value in facts.items())
        end = 0
        for name, shape in shapes.items():
            kind, block, size = (12, 256, 144) if shape and shape[-1] % 256 == 0 else (1, 1, 2)
            head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, end)
            end += -(-(math.prod(shape) // block * size) // 32) * 32
        target = self._place(path)
        with target.open("wb") as file:
            file.write(head)
            file.truncate(-(-len(head) // 32) * 32 + end)
        return target

    def pickle(self, path: str, content: object, *, zipped: bool = True) -> Path:
        """Write what torch.save would: tuples in `content` stand for tensors of this shape."""
        target = self._place(path)
        count = largest(content)
        written = b"\x80\x02" + pickle_program(content, count) + b"."
        if zipped:
            with zipfile.ZipFile(target, "w") as archive:
                archive.writestr("archive/data.pkl", written)
                archive.writestr("archive/version", "3")
                archive.writestr("archive/data/0", bytes(2 * count))
        else:
            heads = (pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
            keys = ["0"] if b"HalfStorage" in written else []
            data = struct.pack("<q", count) + bytes(2 * count) if keys else b""
            target.write_bytes(b"".join(heads) + written + pickle.dumps(keys, 2) + data)
        return target

    def _place(self, path: str) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def json(self, path: str, value: object) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(value))
        return target

    def checkpoint(self, path: str = "model.safetensors", *, width: int = 768, channels: int = 4) -> Path:
        shapes = {
            f"{UNET}.0.0.weight": (2, channels, 3, 3),
            f"{UNET}.2.1.transformer_blocks.0.attn2.to_k.weight": (2, width),
            "first_stage_model.decoder.conv_in.weight": (2, 4, 3, 3),
        }
        return self.tensors(path, shapes)

    def vae(self, path: str = "vae.safetensors", *, channels: int = 4) -> Path:
        return self.tensors(
            path, {"decoder.conv_in.weight": (2, channels, 3, 3), "encoder.conv_in.weight": (2, 3, 3, 3)}
        )

    def pipeline(self, name: str = "pipeline", **unet: Any) -> Path:
        self.json(f"{name}/model_index.json", {"_class_name": "StableDiffusionPipeline"})
        self.json(f"{name}/unet/config.json", {"cross_attention_dim": 768, "in_channels": 4} | unet)
        self.json(f"{name}/scheduler/scheduler_config.json", {"prediction_type": "v_prediction"})
        self.tensors(f"{name}/unet/diffusion_pytorch_model.safetensors", {"conv_in.weight": (2, 4, 3, 3)})
        return self.folder / name

    def vae_folder(self, name: str = "autoencoder", **config: Any) -> Path:
        self.json(f"{name}/config.json", {"_class_name": "AutoencoderKL", "latent_channels": 4} | config)
        self.tensors(f"{name}/diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (2, 4, 3, 3)})
        return self.folder / name


def largest(value: object) -> int:
    """Return the elements of the largest tensor in what `Make.pickle` is given."""
    if isinstance(value, dict):
        return max((largest(item) for item in value.values()), default=1)
    return math.prod(value) if isinstance(value, tuple) else 1


def pickle_program(value: object, count: int) -> bytes:
    """Return the pickle's instructions for texts, numbers, mappings, and tuples that stand for tensors.

    All tensors are views of one storage of `count` elements.
    """
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, dict):
        return (
            b"}("
            + b"".join(pickle_program(key, count) + pickle_program(item, count) for key, item in value.items())
            + b"u"
        )
    assert isinstance(value, tuple)
    strides = tuple(math.prod(value[axis + 1 :]) for axis in range(len(value)))
    shape, steps = (
        b"(" + b"".join(pickle_program(length, count) for length in sizes) + b"t" for sizes in (value, strides)
    )
    name = (
        b"("
        + pickle_program("storage", count)
        + b"ctorch\nHalfStorage\n"
        + pickle_program("0", count)
        + pickle_program("cpu", count)
    )
    storage = name + pickle_program(count, count) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + pickle_program(0, count)
        + shape
        + steps
        + b"\x89"
        + hooks
        + b"tR"
    )


@dataclass
class FakeWorkers:
    """Answers what it was told to, and keeps what it was asked."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    one: Callable[[dict[str, Any]], Any] | None = None
    """What a worker that is asked alone does."""

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float, *, startup_s: float = 0.0) -> Any:
        self.asked.append(name)
        if self.one is None:
            raise Unavailable("no worker is ready")
        return await asyncio.to_thread(self.one, body)

    async def ask_all(
        self, name: str, body: dict[str, Any] | None = None, seconds: float = 10.0
    ) -> list[dict[str, Any]]:
        self.asked.append(name)
        return self.answers


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return Make(tmp_path / "sources")


@pytest.fixture
async def installer(resources: Resources) -> AsyncIterator[Installer]:
    service = Installer(resources)
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
def bytes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bytes of files be copied into the models folder, as between disks."""
    for name in ("clone", "link"):
        monkeypatch.setattr(copies, name, lambda *_paths: False)


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers()


@pytest.fixture
def app(resources: Resources, installer: Installer, workers: FakeWorkers) -> Application:
    application = Application(separate_input_output_schemas=False, generate_unique_id_function=lambda route: route.name)
    application.services.add(Resources, resources)
    application.services.add(Installer, installer)
    application.services.add(Workers, workers)
    error_handlers.install(application)
    application.include_router(bodies.read_strictly(router))
    return application


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v2/models") as http_client:
        yield http_client


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Collect what the room logs, however other tests have set up logging."""
    messages: list[str] = []

    class MessageCollector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler, logger = MessageCollector(), log.get("models")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.setLevel(level)
    logger.removeHandler(handler)


async def wait_for_end(job: ModelInstallJob) -> ModelInstallJob:
    while not job.ended:
        await asyncio.sleep(0.005)
    return job


Install = Callable[..., Any]


@pytest.fixture
def install(installer: Installer) -> Install:
    """Install a path in place, copied with `inplace=False`, or moved with `move` too, and return the ended job."""

    async def run(path: Path, *, inplace: bool = True, move: bool = False, **changes: Any) -> ModelInstallJob:
        changed = ModelRecordChanges(**changes)
        return await wait_for_end(await installer.add(str(path), changed, inplace=inplace, move=move))

    return run
