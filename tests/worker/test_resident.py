"""The models that a worker holds, and that it takes items which need them before others."""

import threading
from typing import Any

from invokeclone.kit.resources import Resources
from invokeclone.queue import service
from invokeclone.queue.batches import Batch
from invokeclone.worker.engine import Engine
from invokeclone.worker.process import DatabaseQueue


def load_keys(engine: Engine, *keys: str) -> None:
    for key in keys:
        engine._ready().get(key, dict)


async def test_resident_models_are_listed_once_latest_first(resources: Resources) -> None:
    engine = Engine(resources.settings, "cpu")
    assert engine.resident() == []
    load_keys(engine, "a:unet", "b", "a:vae", "c:unet", "b")
    assert engine.resident() == ["b", "c", "a"]
    assert engine.resident(limit=2) == ["b", "c"]
    engine.drop(["b"])
    assert engine.resident() == ["c", "a"]


async def test_listing_resident_models_does_not_wait_for_a_load(resources: Resources) -> None:
    engine = Engine(resources.settings, "cpu")
    load_keys(engine, "a")
    loading, go_on = threading.Event(), threading.Event()

    def load() -> dict[str, int]:
        loading.set()
        assert go_on.wait(10)
        return {}

    thread = threading.Thread(target=lambda: engine._ready().get("b", load))
    thread.start()
    try:
        assert loading.wait(10)
        assert engine.resident() == ["a"]
    finally:
        go_on.set()
        thread.join()
    assert engine.resident() == ["b", "a"]


async def test_worker_prefers_items_that_need_its_loaded_models(resources: Resources, make: Any) -> None:
    engine = Engine(resources.settings, "cpu")
    queue = DatabaseQueue(resources, "cpu", engine)
    item_ids = []
    for key in ("one", "other", "one", "other"):
        graph = make.graph({"a": {"type": "toy_fail", "how": f"model-{key}"}})
        batch = Batch.model_validate({"graph": graph, "runs": 1})
        item_ids += (await service.enqueue(resources, "default", batch)).item_ids

    async def claim_id() -> int:
        item = await queue.claim()
        assert item
        return item.item_id

    assert await claim_id() == item_ids[0]
    load_keys(engine, "model-other:unet")
    assert [await claim_id(), await claim_id(), await claim_id()] == [item_ids[1], item_ids[3], item_ids[2]]
    assert await queue.claim() is None
