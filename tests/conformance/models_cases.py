"""Records of models, their relationships, unfinished installations."""

from typing import Any

from invokeclone.models.identify import registry
from invokeclone.models.install import journal
from invokeclone.models.install.journal import InstallEntry
from invokeclone.models.records import relationships, store
from invokeclone.models.records.schemas import ModelRecordOrderBy, SQLiteDirection
from invokeclone.tables import model_installs
from tests.conformance.cases import Calls, case


def config(key: str, **fields: Any) -> Any:
    record = {
        "key": key, "hash": f"blake3:{key}", "path": f"{key}/x", "file_size": 1, "name": key, "source": f"/from/{key}",
        "source_type": "path", "type": "main", "format": "checkpoint", "base": "sd-1", "prediction_type": "epsilon",
        "variant": "normal",
    }  # fmt: skip
    return registry.parse(record | fields)


@case
async def records(run: Calls) -> None:
    await run(store.add, config("a", name="beta", file_size=5_000_000_000, description="é"))
    await run(store.add, config("b", name="Alpha", file_size=2, format="diffusers", source="https://x/y_z"))
    await run(store.add, config("c", name="gamma", type="vae", default_settings=None))
    await run(store.add, config("d", path="a/x"))
    await run(store.add, config("a", path="other"))
    await run(store.get, "a")
    await run(store.get, "z")
    await run(store.exists, "a")
    await run(store.exists, "z")
    await run(store.has_path, "a", "other")
    await run(store.has_path, "a", (await run(store.get, "a")).path)
    await run(store.has_path, "z", "other")
    for attributes in (
        {},
        {"name": "beta"},
        {"name": "BETA"},
        {"type": "vae"},
        {"bases": ["sd-1", "sdxl"]},
        {"hash": "blake3:b"},
    ):
        await run(store.search, **attributes)
        await run(store.find_first, **attributes)
    for order in ModelRecordOrderBy:
        for direction in SQLiteDirection:
            rows = await store.search_records(run.database, order_by=order, direction=direction)
            run.record(store.search_records, [order.value, [[row.config.key, row.json] for row in rows]])
    await run(store.paths)
    await run(store.list_installed_files)
    await run(store.creation_times)
    for prefix in ("/from/", "https://x/y_", "https://x/yxz", "%"):
        await run(store.keys_by_source, prefix)
    await run(store.sources)
    await run(store.list_installed)
    await run(store.update, config("a", name="delta", path="c/x"))
    await run(store.update, config("a", name="delta"))
    await run(store.update, config("z"))
    await run(store.delete, "b")
    await run(store.delete, "b")
    await run(store.search)


@case
async def related(run: Calls) -> None:
    for key in "abc":
        await run(store.add, config(key))
    for pair in (("a", "b"), ("b", "c"), ("a", "b"), ("a", "z")):
        await run(relationships.add, pair)
    for keys in (["a"], ["a", "c"], [], ["z"]):
        await run(relationships.list_related, keys)
    await run(store.add, config("e"))
    await run(relationships.transfer, "b", "e")
    await run(relationships.list_related, ["e"])
    await run(relationships.remove, ("a", "e"))
    await run(store.delete, "c")
    await run(relationships.list_related, ["e", "a"])


@case
async def installations(run: Calls) -> None:
    await run(journal.save, InstallEntry("f2", "k", "{}", "{}"))
    await run.insert(model_installs, {"folder": "f1", "key": "k", "source": "{}", "stated": "{}"})
    await run(journal.save, InstallEntry("f2", "k", "{}", "{}", plan='{"a":1}', paused=True, error="x"))
    await run(journal.entries)
    await run(journal.remove, "f2")
    await run(journal.entries)
