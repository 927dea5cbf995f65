"""The queue: items, claims, leases, counts, calls, and ComfyUI's lists of it."""

import asyncio
import itertools
from typing import Any

from sqlalchemy import update

from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import InputField
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue import bulk, bulk_counts, capacity, counts, insertion, leases, metrics, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.bulk_counts import CountKey
from invokeclone.queue.calls import chain
from invokeclone.queue.schemas import TERMINAL
from invokeclone.shims.automatic1111 import store as generations
from invokeclone.shims.comfyui import catalog, jobs
from invokeclone.shims.comfyui import store as prompts
from invokeclone.shims.comfyui.files import uploads, user_data
from invokeclone.shims.comfyui.files.names import ImageName
from invokeclone.shims.comfyui.translate import NAME
from invokeclone.tables import comfyui_uploads, session_graphs, session_queue, users
from invokeclone.users.current import SYSTEM, User
from tests.conformance.cases import Calls, case
from tests.conformance.images_cases import fill, image

ANN, BOB = User(user_id="ann"), User(user_id="bob")
ALL = ItemFilter(queue_id="default")


@invocation_output("conformance_output")
class ConformanceOutput(BaseInvocationOutput):
    """Nothing."""


@invocation("conformance_test", title="Conformance Test", category="tests", version="1.0.0")
class ConformanceInvocation(BaseInvocation):
    """A node with a text."""

    text: str = InputField(default="", description="A text")

    def invoke(self, context: Any) -> ConformanceOutput:
        return ConformanceOutput()


def batch(*, runs: int = 1, **fields: Any) -> Batch:
    graph = {"id": "g", "nodes": {"a": {"id": "a", "type": "conformance_test", "text": 'é "x"'}}, "edges": []}
    data = [[{"node_path": "a", "field_name": "text", "items": [f"text {number}" for number in range(runs)]}]]
    return Batch.model_validate({"graph": graph, "runs": 1, "data": data, "batch_id": "b", **fields})


async def add(
    run: Calls, *, queue: str = "default", prepend: bool = False, user: User = SYSTEM, **fields: Any
) -> list[int]:
    """Enqueue a batch, which calls `insertion.add`."""
    result = await service.enqueue(run.resources, queue, batch(**fields), prepend=prepend, user=user)
    run.record(insertion.add, [result.item_ids, result.priority, result.enqueued])
    return sorted(result.item_ids)


async def fill_queue(run: Calls) -> None:
    """Add items of three users in every status: 1 completed, 2 failed, 3 running, 4 canceled, the others pending."""
    await add(run, runs=3, destination="d", origin="o")
    await add(run, runs=3, user=ANN, batch_id="ann's")
    await add(run, runs=2, user=BOB, destination="d", batch_id="bob's", prepend=True)
    await add(run, runs=2, queue="other", batch_id="o")
    rest = ',"execution_graph":{"id":"e"},"results":{"a":["é"]},"errors":{}}'
    await store_status(run, 1, "completed", rest)
    await store_status(run, 2, "failed", rest, ("E", "message", "trace"))
    await run(store.set_status, 3, "in_progress")
    await run(store.set_status, 4, "canceled")
    await run(store.set_status, 4, "completed")


async def store_status(run: Calls, item_id: int, status: Any, rest: str, error: Any = None) -> None:
    await run(store.save_session, item_id, rest)
    await run(store.set_status, item_id, status, error)


async def all_counts(run: Calls) -> None:
    for viewer in (None, "ann"):
        await run(counts.of_queue, "default", "bob", viewer)
        for name in ("b", "ann's", "none"):
            await run(counts.of_batch, "default", name, viewer)
        await run(counts.of_destination, "default", "d", viewer)
    await run(counts.of_processor)
    await run(metrics.measure)


async def free_capacity(run: Calls, *queue_ids: str) -> None:
    limited = run.resources.settings.model_copy(update={"max_pending_items_per_user": 5})
    for settings, user_id, queue_id in itertools.product((run.resources.settings, limited), ("ann", "x"), queue_ids):
        free = await run.database.transact(lambda c: capacity.measure(c, settings, queue_id, user_id))  # noqa: B023
        run.record(capacity.measure, [free.items, str(free.reason), free.highest_priority])


@case
async def reads(run: Calls) -> None:
    await fill_queue(run)
    await all_counts(run)
    for viewer in (None, "ann", "system"):
        for item_id in (1, 2, 5, 99):
            await run(store.get_json, "default", item_id, viewer=viewer)
            await run(store.get_json, "default", item_id, nulls=False, viewer=viewer)
        await run(store.current_json, "default", viewer)
        await run(store.next_json, "default", viewer)
        await run(store.list_order, "default", None, viewer)
        await run(store.list_order, "default", "d", viewer)
        ids = [5, 1, 99, 2, 9, 1, 2**80, -1]
        await run(store.get_many_json, "default", ids, viewer)
        await run(store.get_summaries_json, "default", ids, viewer)
        parts = [part async for part in store.stream_json(run.database, "default", ids, viewer)]
        run.record(store.stream_json, "".join(parts))
    for item_id in (1, 3, 9, 99):
        item = await run(store.get, "default", item_id)
        await run(store.get_status, item_id)
        await run(store.get_status, item_id, fence=0)
        await run(store.get_status, item_id, fence=7)
        await run(store.get_session, item_id)
        await run(store.list_chain, item_id)
        if item is not None:
            await run(counts.of_item, item)
    await free_capacity(run, "default", "none")
    await run(store.list_pending, "default")
    await run(store.list_batch, "default", "b")
    await run(store.list_items, [3, 99, 1, 3])
    await run(store.list_of_batches, ["o", "b", "none"])
    await run(store.list_roots, [3, 1, 99])
    async with run.database.write() as connection:
        await connection.execute(update(session_queue).values(created_at="2026-01-01"))
        await connection.execute(
            update(session_queue).where(session_queue.c.item_id > 6).values(created_at="2026-01-02")
        )
    for newest_first in (True, False):
        await run(store.list_ids, "default", newest_first=newest_first)


@case
async def inserts(run: Calls) -> None:
    for runs in (49, 50, 51, 120):
        await add(run, runs=runs, batch_id=f"b{runs}")
        await run(counts.of_batch, "default", f"b{runs}")
    await run(store.set_status, 62, "canceled")
    await run(store.set_priorities, {60: 2, 61: 3, 62: 4, 999: 3})
    await run(store.set_priorities, {})
    await run(store.get_json, "default", 62)
    await run(store.list_pending_items, "default")
    await free_capacity(run, "default")
    await run(store.set_status, 60, "failed")
    await run(store.repeat, 60)
    await run(store.get_json, "default", 271)
    await run(store.repeat, 271)
    await run(store.get_json, "default", 272)
    whole = '{"id": "old", "graph": {"nodes": {}}, "results": {}}'
    await run.insert(session_queue, {"queue_id": "q", "batch_id": "old", "session_id": "old", "session": whole})
    await run(store.save_session, 273, ',"results":{"x":1}}')
    await run(store.get_session, 273)
    await run(store.repeat, 273)
    await run(store.get_session, 274)


@case
async def claims(run: Calls) -> None:
    async def claim(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.002)  # turns are taken by times in milliseconds
        return await run(store.claim, *arguments, **options)

    await add(run, runs=3, user=ANN)
    await add(run, runs=2, user=BOB)
    await add(run, runs=2, user=ANN, prepend=True, batch_id="late")
    first = await claim("cuda:0", worker_id="w")
    await claim("cpu", round_robin=True)
    await claim("cpu", round_robin=True)
    await claim("cpu", resident=["text 2"])
    await claim("cpu", round_robin=True, resident=["text 1", "no key"])
    await run(store.pause)
    await run(store.pause)
    await run(counts.of_processor)
    await claim("cpu")
    await run(store.resume)
    await claim("cpu")
    await claim("cpu", resident=["x"])
    await claim("cpu")
    await claim("cpu", round_robin=True)
    await claim("cpu", round_robin=True, resident=["x"])
    await run(leases.get_held_claim, "w")
    await run(leases.get_held_claim, "nobody")
    await run(leases.get_held_item, "w", first.item_id, 1)
    await run(leases.get_held_item, "w", first.item_id, 2)
    for worker_id, fence in (("w", 1), ("w", 2), ("v", 1)):
        await run(leases.was_claimed_by, worker_id, first.item_id, fence)
    failure = ("E", "m", "t")
    for found in (first.item_id, 1):
        await run(store.find_ended, found, "failed", failure, 1)
    await run(store.set_status, first.item_id, "completed", fence=2)
    await run(store.save_session, first.item_id, "{}", fence=2)
    await run(leases.rescue)
    async with run.database.write() as connection:
        await connection.execute(
            update(session_queue).where(session_queue.c.worker_id == "w").values(lease_expires_at="2020")
        )
    await run(leases.renew, ["x"])
    await run(leases.rescue)
    await run(leases.renew, ["w", "cpu"])
    await run(leases.interrupt, "cpu", "a reason")
    for number in (1, 2, 3):
        await claim("cpu", worker_id="v")
        run.record(leases.interrupt, [number, sorted(await leases.interrupt(run.resources, "v", "it died"))])
    await run(leases.release, "v")
    held = await claim("cpu", worker_id="u")
    await run(store.set_status, held.item_id, "failed", failure, fence=held.fence, rest=',"results":{"a":1}}')
    await run(store.get_session, held.item_id)
    for status, error, fence in (
        ("failed", failure, 1),
        ("failed", None, 1),
        ("completed", failure, 1),
        ("failed", failure, 9),
    ):
        await run(store.find_ended, held.item_id, status, error, fence)
    await run(store.list_items, list(range(1, 8)))
    await all_counts(run)


@case
async def bulk_changes(run: Calls) -> None:
    await fill_queue(run)
    await run(bulk.list_running, ALL)
    await run(bulk.list_running, None, "cpu")
    await run(bulk.cancel_idle, ItemFilter(queue_id="default", batch_ids=["ann's", "none"]))
    await run(bulk.cancel_idle, ItemFilter(queue_id="default", owner="bob"), spare_running=True)
    await run(bulk.cancel_idle, ItemFilter(queue_id="default", destination="none"))
    await all_counts(run)
    await run(bulk.cancel_interrupted)
    await run(bulk.keep_newest, "default", 5)
    await run(store.list_order, "default")
    await add(run, runs=4, destination="d", batch_id="more")
    await run(bulk.delete_items, "default", [11, 99])
    await run(
        bulk.delete_many, ItemFilter(queue_id="default", destination="d"), ("pending", "canceled"), spare_running=True
    )
    await run(bulk.last_item_id)
    await run(bulk.empty, ItemFilter(queue_id="default", owner="ann"), TERMINAL)
    await all_counts(run)
    await run(bulk.empty, ALL, TERMINAL)
    await run(bulk.empty, ALL)
    await run(bulk.delete_many, ItemFilter(queue_id="other"))
    await add(run, runs=2)
    await run(bulk.empty, ALL)
    await all_counts(run)

    async def count(changes: Changes) -> None:
        await bulk_counts.update_counts(changes, "default", {CountKey("x", None, "ann", "failed"): 2})
        await bulk_counts.update_counts(changes, "default", {CountKey("x", None, "ann", "failed"): -1})

    await run.database.transact(count)
    run.record(bulk_counts.update_counts, None)
    await all_counts(run)
    await run.insert(session_graphs, {"template": "t"})
    await run(bulk_counts.remove_unused, ["x"], [None, 1, 2, 3, 4, 5, 6, 7])
    async with run.database.read() as connection:
        run.record(
            bulk_counts.remove_unused, [row.template for row in await connection.execute(session_graphs.select())]
        )


@case
async def calls(run: Calls) -> None:
    """Item 1 waits for 2 and 3, of which 3 waits for 4; the caller of 5 no longer waits."""
    shared = {"queue_id": "default", "batch_id": "b", "session": "{}"}
    called = shared | {"parent_session_id": "s", "root_item_id": 1, "workflow_call_id": "c", "workflow_call_depth": 1}
    await run.insert(
        session_queue,
        shared
        | {
            "session_id": "s1",
            "status": "waiting",
            "session": '{"waiting_workflow_call_execution": {"id": "c", "expected_child_count": 2}}',
        },
    )
    await run.insert(session_queue, called | {"session_id": "s2", "parent_item_id": 1, "status": "completed"})
    await run.insert(
        session_queue,
        called
        | {
            "session_id": "s3",
            "parent_item_id": 1,
            "status": "waiting",
            "session": '{"waiting_workflow_call_execution": {"id": "d"}}',
        },
    )
    await run.insert(
        session_queue,
        called
        | {"session_id": "s4", "parent_item_id": 3, "status": "pending", "device": "cpu", "workflow_call_id": "d"},
    )
    await run.insert(session_queue, called | {"session_id": "s5", "parent_item_id": 2, "status": "pending"})
    for item_id in (1, 2, 4):
        await run(store.list_chain, item_id)
    await run(store.list_roots, [4, 3, 1])
    await run(chain.settle)
    item = await run(store.get, "default", 4)

    async def event(changes: Changes) -> Any:
        return [
            await chain.status_event(changes, item),
            await chain.settle_calls(changes, None),
            await chain.settle_calls(changes, item),
            await chain.list_caller_events(changes, item),
        ]

    for function in (chain.status_event, chain.settle_calls, chain.list_caller_events):
        run.record(function, [str(type(value)) for value in await run.database.transact(event)])
    await run(chain.forget_devices)
    await run(store.list_items, [1, 2, 3, 4, 5])
    await run(bulk.cancel_idle, ALL, spare_running=True)
    await run(store.set_status, 4, "canceled")
    run.record(chain.settle, [event.name for event in await run.database.transact(chain.settle)])
    await run(store.list_items, [1, 2, 3, 4, 5])


@case
async def a1111_queue(run: Calls) -> None:
    for batch_id in ("done", "old", "new"):
        await add(run, user=ANN, batch_id=batch_id, origin=generations.ORIGIN)
    await add(run, user=BOB, batch_id="other")
    await add(run, user=BOB, batch_id="old")  # Ann's id; it must not be one of her items
    await run(store.set_status, 1, "canceled")
    for user_id, limit in (("ann", 1), ("ann", 0), ("bob", 1)):
        await run(generations.oldest_batch, user_id, limit)


@case
async def comfyui_queue(run: Calls) -> None:
    for number in range(3):
        await add(run, user=ANN, batch_id=f"p{number}", origin=NAME, destination=NAME)
    await add(run, user=ANN, batch_id="plain")
    rest = ',"results":{},"prepared_source_mapping":{},"execution_graph":{"nodes":{}},"errors":{}}'
    await store_status(run, 1, "completed", rest)
    await store_status(run, 2, "failed", rest, ("E", "m", "t"))
    await run(prompts.list_items, ANN)
    await run(prompts.list_items, ANN, statuses=["pending"], newest=1)
    await run(prompts.list_items, ANN, prompt_ids=["p1", "none"])
    await run(prompts.list_ended, ANN, 1, 5)
    await run(prompts.list_ended, BOB, 0, 5)
    async with run.database.read() as connection:
        run.record(prompts.sessions, sorted((await prompts.sessions(connection, [1, 2, 3, 99])).items()))
    await run(prompts.records, [1, 2])
    await run(prompts.prompts, [1, 2])
    await run(prompts.newest_id)
    await run(prompts.list_newer, 1)
    await run(prompts.count_active, "ann")
    for prompt_id in ("p1", "none"):
        await run(prompts.is_taken, prompt_id)
        await run(jobs.find, ANN, prompt_id)
    await run(jobs.find, ANN, "4")
    await run(jobs.find, ANN, "9" * 15)
    async with run.database.write() as connection:
        times = {"created_at": "2026-01-01 00:00:00.000", "started_at": "2026-01-01 00:00:01.000"}
        times |= {"updated_at": "2026-01-01 00:00:02.000"}
        await connection.execute(update(session_queue).values(times))
        for item_id, ended in ((1, "2026-01-01 00:00:07.000"), (2, "2026-01-02 00:00:00.500")):
            one = update(session_queue).where(session_queue.c.item_id == item_id)
            await connection.execute(one.values(completed_at=ended))
    await run(jobs.get_job, ANN, "p1")
    await run(jobs.get_job, ANN, "none")
    for query in (
        jobs.JobQuery(list(jobs.STATUSES)),
        jobs.JobQuery(["completed"], newest_first=False, limit=1),
        jobs.JobQuery(list(jobs.STATUSES), sort_by=jobs.DURATION, offset=1),
        jobs.JobQuery(list(jobs.STATUSES), workflow_id="w1"),
        jobs.JobQuery(list(jobs.STATUSES), offset=2**40),
    ):
        await run(jobs.list_jobs, ANN, query)


@case
async def comfyui_files(run: Calls) -> None:
    await run.insert(users, {"user_id": "ann", "email": "a@x.io"})
    await fill(run, 6)
    limits = run.resources.settings.limits
    await run(user_data.read_settings, ANN, limits)
    await run(user_data.change_settings, ANN, {"a": 1, "b": {"c": "é"}}, limits)
    await run(user_data.change_settings, ANN, {"a": None}, limits)
    await run(user_data.read_settings, ANN, limits)
    for path in ("w/x.json", "w/y%.json", "w_/z.json", "top.txt"):
        await run(user_data.write, ANN, path, path.encode(), limits)
    await run(user_data.write, ANN, "top.txt", b"again", limits, overwrite=False)
    await run(user_data.write, ANN, "top.txt/below", b"x", limits)
    await run(user_data.write, ANN, "w", b"x", limits)
    for folder in ("", "w", "none"):
        async with run.database.read() as connection:
            listed = await user_data.list_files(connection, ANN, folder)
        run.record(user_data.list_files, sorted(file.path for file in listed))
    for path in ("w/x.json", "none"):
        await run(user_data.read, ANN, path)
        await run(user_data.move, ANN, path, "w_/moved.json")
        await run(user_data.remove, ANN, path)
    async with run.database.read() as connection:
        info = await user_data.info(connection, ANN, "top.txt")
    run.record(user_data.info, [info.path, info.size])
    await run(user_data.move, ANN, "w_/moved.json", "top.txt", overwrite=False)
    names = [
        ImageName("input", "", "a.png"),
        ImageName("input", "s", "a.png"),
        ImageName("output", "", str(image(0)["image_name"])),
    ]
    row = {"user_id": "ann", "image_name": image(0)["image_name"], "content_hash": "h"}
    await run.insert(
        comfyui_uploads, *[row | {"folder": n.folder, "subfolder": n.subfolder, "name": n.name} for n in names[:2]]
    )
    await run.insert(
        comfyui_uploads, row | {"folder": "input", "subfolder": "", "name": "a (1).png", "created_at": "2027"}
    )
    for function in (uploads.find, uploads.resolve):
        async with run.database.read() as connection:
            found = await function(connection, ANN, names)
        run.record(function, sorted((str(name), stored) for name, stored in found.items()))
    await run(uploads.newest_inputs, ANN, 5)
    for digest in ("h", "other"):
        for overwrite in (True, False):
            await run(uploads.find_free_name, ANN, names[0], digest, overwrite=overwrite)
    await run(catalog.read, ANN, ["a.png", "s/a.png", str(image(1)["image_name"]), "none"])
