"""What a running worker takes over from the server without a restart."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.config.settings import Settings
from invokeclone.worker.link import LineReader, LineWriter
from invokeclone.worker.process import Process
from tests.custom_nodes.packs import write_pack


@pytest.fixture
def pipes() -> Iterator[tuple[LineReader, LineWriter]]:
    inbound, outbound = os.pipe(), os.pipe()
    reader, writer = LineReader(inbound[0]), LineWriter(outbound[1])
    yield reader, writer
    writer.close(1)
    reader._file.close()
    for descriptor in (*inbound, *outbound):
        os.close(descriptor)


async def test_changed_settings_apply_from_the_next_use(
    settings: Settings, pipes: tuple[LineReader, LineWriter]
) -> None:
    process = Process(settings, "cpu", *pipes)
    changed = settings.model_copy(update={"image_subfolder_strategy": "date"})
    process._handle({"kind": "settings", "settings": changed.to_worker()})
    assert process._tools.resources.settings.image_subfolder_strategy == "date"
    assert process._tools.resources.settings.root == settings.root.absolute()
    await process._database.close()


async def test_packs_are_loaded_and_unloaded_between_items(
    settings: Settings, pipes: tuple[LineReader, LineWriter]
) -> None:
    registry.discover()
    process = Process(settings, "cpu", *pipes)
    write_pack(settings.root / "nodes", "between", prefix="between")
    process._handle({"kind": "packs", "names": ["between", "missing"]})
    await asyncio.wrap_future(process._loop._thread.submit(lambda: None))
    assert registry.get("between_echo").__module__ == "between.nodes"
    process._handle({"kind": "packs", "names": []})
    await asyncio.wrap_future(process._loop._thread.submit(lambda: None))
    assert "between_echo" not in registry.nodes()
    process._loop._thread.shutdown()
    await process._database.close()


def test_pack_with_a_missing_folder_is_skipped(tmp_path: Path) -> None:
    from invokeclone.custom_nodes import loading

    loading.replace(tmp_path / "nowhere", [])
    loading.replace(tmp_path / "nowhere", ["gone"])
    assert "gone" not in loading._loaded
