"""The whole application: an item ends, and the receiver gets the event; also what an earlier server left."""

import asyncio

import httpx

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app
from tests.webhooks.conftest import Hooks, Receiver, until

BATCH = {"graph": {"nodes": {"a": {"id": "a", "type": "add"}}}, "runs": 1, "batch_id": "b"}


async def test_events_arrive_from_a_server_and_after_its_restart(
    settings: Settings, hooks: Hooks, receiver: Receiver
) -> None:
    app = create_app(settings.model_copy(update={"allow_private_webhook_urls": True}), worker_command=None)
    await hooks.emit(await hooks.add(receiver.url("/left")))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test/api/v1/") as client:
            await until(lambda: len(receiver.received) == 1)
            answer = await client.post("webhooks/", json={"url": receiver.url("/new"), "events": ["batch_done"]})
            assert answer.status_code == 201, answer.text
            enqueued = (await client.post("queue/default/enqueue_batch", json={"batch": BATCH})).json()
            await client.put(f"queue/default/i/{enqueued['item_ids'][0]}/cancel")
            await until(lambda: len(receiver.received) == 3)
            assert {(body["data"].get("batch_id"), body["data"].get("canceled")) for body in receiver.bodies[1:]} == {
                ("b", 1)
            }
            await hooks.settled()
            result = 'invokeclone_webhook_attempts_total{event="batch_done",result="delivered"} 3'
            async with asyncio.timeout(20):
                while result not in (metrics := (await client.get("http://test/metrics")).text):
                    await asyncio.sleep(0.01)
            assert "invokeclone_webhook_pending_deliveries 0" in metrics
