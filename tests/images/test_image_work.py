"""Whole files in memory are few at a time, and those that wait for the storage hold up no other work on images."""

import asyncio
import threading

import pytest

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import image_work, service
from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.resources import Resources
from tests.applications import sample_image


class Reads:
    """Reads of files, which wait until `go_on` is set; then they fail with `error` if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun: list[int] = []
        self.go_on = threading.Event()
        self._error = error

    def __call__(self) -> bytes:
        self.begun.append(1)
        assert self.go_on.wait(30)
        if self._error is not None:
            raise self._error
        return b"content"

    async def have_begun(self, number: int) -> None:
        async with asyncio.timeout(30):
            while len(self.begun) < number:
                await asyncio.sleep(0.01)


async def test_few_whole_files_are_in_memory_at_a_time(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_work, "WHOLE_FILES", 2)
    reads, processed = Reads(), list[int]()

    def process(content: bytes) -> int:
        processed.append(len(reads.begun))
        return len(content)

    tasks = [asyncio.create_task(image_work.process(reads, process)) for _ in range(5)]
    await reads.have_begun(2)
    saving = asyncio.create_task(
        service.save(resources, sample_image(), category=ImageCategory.GENERAL, origin=ResourceOrigin.INTERNAL)
    )
    assert await image_work.image_work(lambda: 3) == 3
    assert len(reads.begun) == 2
    assert not saving.done()
    reads.go_on.set()
    assert await asyncio.gather(*tasks) == [7] * 5
    await saving
    assert all(begun <= done + 2 for done, begun in enumerate(processed))


async def test_those_that_wait_fail_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_work, "WHOLE_FILES", 2)
    reads = Reads(StorageUnreachable("no response in time"))
    tasks = [asyncio.create_task(image_work.process(reads, len)) for _ in range(5)]
    await reads.have_begun(2)
    reads.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [StorageUnreachable] * 5
    assert len(reads.begun) == 2
    assert await image_work.process(lambda: b"content", len) == 7
