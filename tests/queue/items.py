"""What tests of the queue read of its items, and a claim."""

import json
from typing import Any

from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, store


async def read(resources: Resources, item_id: int, queue: str = "default") -> dict[str, Any]:
    async with resources.database.read() as connection:
        return dict(json.loads(await store.get_json(connection, queue, item_id)))


async def statuses(resources: Resources, queue: str = "default") -> list[str]:
    async with resources.database.read() as connection:
        items = json.loads(await store.get_many_json(connection, queue, await store.list_order(connection, queue)))
    return [item["status"] for item in sorted(items, key=lambda item: item["item_id"])]


async def take(resources: Resources) -> int | None:
    item = await claims.claim(resources, "cpu")
    return item.item_id if item else None
