"""The workflow library."""

from typing import Any

from invokeclone.kit.paging import SQLiteDirection
from invokeclone.tables import workflows
from invokeclone.workflows import store
from invokeclone.workflows.schemas import (
    Workflow,
    WorkflowCallCompatibility,
    WorkflowCallCompatibilityReason,
    WorkflowRecordOrderBy,
)
from invokeclone.workflows.store import Filter
from tests.conformance.cases import Calls, case
from tests.workflows.drawing import workflow

OK = WorkflowCallCompatibility(is_callable=True, reason=WorkflowCallCompatibilityReason.Ok, message=None)
NAMES = (("a1", "Zoë", "red, blue"), ("a2", "alpha 100%", "Blue"), ("a3", "Beta_x", ""))


def drawn(workflow_id: str, name: str, tags: str = "", **fields: Any) -> Workflow:
    return Workflow.model_validate(workflow(name, id=workflow_id, tags=tags, **fields))


@case
async def library(run: Calls) -> None:
    for workflow_id, name, tags in NAMES:
        new = drawn(workflow_id, name, tags)
        await run(store.create, new, new.model_dump_json(), (OK, "f1"), user_id="ann", is_public=workflow_id == "a2")
    row = {"description": "", "tags": "blue", "workflow": "{}", "judged_by": "f0", "call_message": "no"}
    await run.insert(workflows, row | {"workflow_id": "d1", "name": "D", "category": "default", "thumbnail": "t"})
    await run(store.create, drawn("a1", "again"), "{}", (OK, "f1"), user_id="bob", is_public=False)
    await run(store.set_opened, "a2")
    filters = (
        Filter(),
        Filter(viewer="bob"),
        Filter(viewer="ann", categories=("user",)),
        Filter(is_public=True, viewer="bob"),
        Filter(tags=("BLUE", "x")),
        Filter(query="ZOË"),
        Filter(query="0%"),
        Filter(query="a_x"),
        Filter(has_been_opened=True),
        Filter(has_been_opened=False),
        Filter(is_callable=True),
        Filter(is_callable=False),
    )
    for chosen in filters:
        for direction in SQLiteDirection:
            await run(store.page, chosen, WorkflowRecordOrderBy.Name, direction, skip=0, take=-1)
        await run(store.count, chosen)
        await run(store.count_by_tag, chosen, ["blue", "red", "none", "%"])
        await run(store.tags, chosen)
        async with run.database.read() as connection:
            run.record(
                store.count_by_category, dict(sorted((await store.count_by_category(connection, chosen)).items()))
            )
    for order in WorkflowRecordOrderBy:
        async with run.database.write() as connection:
            await connection.execute(
                workflows.update().values(created_at=workflows.c.name, updated_at=workflows.c.name)
            )
        await run(store.page, Filter(categories=("user",)), order, SQLiteDirection.Ascending, skip=0, take=2)
        await run(store.page, Filter(), order, SQLiteDirection.Descending, skip=2**62, take=2)


@case
async def changes(run: Calls) -> None:
    new = drawn("w", "n")
    await run(store.create, new, "{}", (OK, "f1"), user_id="ann", is_public=False)
    await run(store.get, "w")
    await run(store.get, "x")
    await run(store.change, drawn("w", "m", "t"), '{"a":1}', (OK, "f2"), is_public=True)
    await run(store.with_thumbnail, ["w", "x"])
    await run(store.set_thumbnail, "w", "mark")
    await run(store.with_thumbnail, ["w", "x"])
    await run(store.get, "w")
    await run(store.find_unjudged, "f2", 10)
    await run(store.find_unjudged, "f3", 10)
    await run(store.set_judgement, "w", "another text", OK, "f3")
    await run(store.set_judgement, "w", '{"a":1}', OK, "f4")
    await run(store.get, "w")
    await run(store.defaults)
    await run.insert(
        workflows,
        {
            "workflow_id": "d",
            "name": "D",
            "category": "default",
            "thumbnail": "t",
            "description": "",
            "tags": "",
            "workflow": "{}",
        },
    )
    await run(store.defaults)
    await run(store.delete_workflow, "w")
    await run(store.get, "w")
