"""Node packs over HTTP: installed from folders and git, described by another process, removed again."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from invokeclone.custom_nodes import sources
from invokeclone.custom_nodes.service import Packs
from invokeclone.graph.invocations import registry
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.users.current import User, current_user
from tests.custom_nodes.packs import write_pack
from tests.server.test_app import running

BASE = "/api/v2/custom_nodes"
NODES_AND_THEN_ERROR = "from .nodes import *\nraise RuntimeError('broken on purpose')"
SECOND_ADD = """
from invokeai.invocation_api import BaseInvocation, StringOutput, invocation

@invocation("add")
class X(BaseInvocation):
    def invoke(self, context) -> StringOutput: ...
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[tuple[Application, httpx.AsyncClient]]:
    async with running(settings) as app_and_client:
        yield app_and_client


@pytest.fixture
def client(served: tuple[Application, httpx.AsyncClient]) -> httpx.AsyncClient:
    return served[1]


async def install(client: httpx.AsyncClient, source: Path | str) -> dict[str, Any]:
    answer = await client.post(f"{BASE}/install", json={"source": str(source)})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def list_packs(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return (await client.get(f"{BASE}/")).json()["node_packs"]


def batch(*nodes: dict[str, Any], edges: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    split = [[end.split(".") for end in edge] for edge in edges]
    ends = [
        {"source": {"node_id": a[0], "field": a[1]}, "destination": {"node_id": b[0], "field": b[1]}} for a, b in split
    ]
    return {"batch": {"graph": {"id": "g", "nodes": {node["id"]: node for node in nodes}, "edges": ends}, "runs": 1}}


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@y.z", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


async def test_no_packs_are_installed_initially(client: httpx.AsyncClient, settings: Settings) -> None:
    answer = (await client.get(f"{BASE}/")).json()
    assert answer == {"node_packs": [], "custom_nodes_path": str(settings.root / "nodes")}


async def test_install_publish_validate_and_remove_a_folder_pack(
    client: httpx.AsyncClient, settings: Settings, elsewhere: Path
) -> None:
    answer = await install(client, write_pack(elsewhere))
    assert "3 nodes" in answer.pop("message")
    assert answer == {
        "name": "conf_pack",
        "success": True,
        "workflows_imported": 1,
        "requires_dependencies": False,
        "dependency_file": None,
    }
    assert await list_packs(client) == [
        {
            "name": "conf_pack",
            "path": str(settings.root / "nodes" / "conf_pack"),
            "node_count": 3,
            "node_types": ["conf_cook", "conf_echo", "conf_shout"],
        }
    ]
    assert "conf_pack" not in sys.modules, "none of its code may run in the server"

    # published as the real class would be
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    pack_schemas = {"ShoutInvocation", "CookInvocation", "EchoInvocation", "ShoutOutput", "Mood", "Recipe"}
    assert set(schemas) >= pack_schemas
    shout = schemas["ShoutInvocation"]
    assert (shout["class"], shout["node_pack"], shout["version"], shout["title"], shout["category"]) == (
        *("invocation", "conf_pack", "1.2.3", "Shout", "conf"),
    )
    assert shout["tags"] == ["text", "shout"]
    assert shout["output"] == {"$ref": "#/components/schemas/ShoutOutput"}
    properties = shout["properties"]
    assert properties["use_cache"]["default"] is False
    assert properties["text"]["ui_component"] == "textarea"
    assert (properties["times"]["minimum"], properties["times"]["maximum"]) == (1, 9)
    assert properties["mark"]["enum"] == ["!", "?"]
    assert properties["mood"]["default"] == "loud"
    assert schemas["Mood"]["enum"] == ["calm", "loud"]
    assert {"$ref": "#/components/schemas/ImageField"} in properties["image"]["anyOf"]
    assert {"$ref": "#/components/schemas/MetadataField"} in properties["metadata"]["anyOf"]
    assert properties["recipe"]["input"] == "connection"
    assert schemas["Recipe"]["properties"]["parts"]["items"] == {"type": "integer"}
    assert properties["type"]["default"] == "conf_shout"

    # graphs with it are checked
    good = batch(
        {"id": "a", "type": "conf_cook"},
        {"id": "b", "type": "conf_shout", "times": 2},
        edges=(("a.recipe", "b.recipe"),),
    )
    assert (await client.post("/api/v1/queue/default/enqueue_batch", json=good)).status_code == 200
    for wrong in (
        batch({"id": "b", "type": "conf_shout", "times": 10}),
        batch({"id": "b", "type": "conf_shout", "mood": "sad"}),
        batch({"id": "b", "type": "conf_shout", "image": {"name": 1}}),
        batch({"id": "b", "type": "conf_whisper"}),
        batch({"id": "a", "type": "conf_cook"}, {"id": "b", "type": "conf_shout"}, edges=(("a.text", "b.recipe"),)),
    ):
        refusal = await client.post("/api/v1/queue/default/enqueue_batch", json=wrong)
        assert refusal.status_code in {400, 422}, wrong

    # its workflow is in the library
    workflows = (await client.get("/api/v1/workflows/?tags=node-pack:conf_pack")).json()["items"]
    assert [(entry["name"], entry["tags"]) for entry in workflows] == [("Shouting", "loud, node-pack:conf_pack")]

    # removed, and what was enqueued with it stays readable
    answer = (await client.delete(f"{BASE}/conf_pack")).json()
    assert (answer["name"], answer["success"]) == ("conf_pack", True)
    assert await list_packs(client) == []
    assert not (settings.root / "nodes" / "conf_pack").exists()
    assert not set((await client.get("/openapi.json")).json()["components"]["schemas"]) & pack_schemas
    assert (await client.post("/api/v1/queue/default/enqueue_batch", json=good)).status_code == 422
    assert (await client.get("/api/v1/workflows/?tags=node-pack:conf_pack")).json()["items"] == []
    item = await client.get("/api/v1/queue/default/i/1")
    assert item.json()["session"]["graph"]["nodes"]["b"]["type"] == "conf_shout"
    everything = (await client.get("/api/v1/queue/default/list_all")).json()
    assert [entry["item_id"] for entry in everything] == [1]


async def test_git_packs_are_installed_without_hooks_and_submodules(
    client: httpx.AsyncClient, settings: Settings, elsewhere: Path, tmp_path: Path
) -> None:
    pack = write_pack(elsewhere, "my-pack.git")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "x.txt").write_text("x")
    for folder in (inner, pack):
        git(folder, "init")
        git(folder, "add", ".")
        git(folder, "commit", "-m", "first")
    git(pack, "-c", "protocol.file.allow=always", "submodule", "add", str(inner), "sub")
    (pack / "requirements.txt").write_text("nothing-like-this==1\n")
    git(pack, "add", ".")
    git(pack, "commit", "-m", "second")
    answer = await install(client, pack.as_uri())
    assert (answer["name"], answer["success"], answer["dependency_file"]) == ("my-pack", True, "requirements.txt")
    assert answer["requires_dependencies"] is True
    installed = settings.root / "nodes" / "my-pack"
    assert (installed / "nodes.py").is_file()
    assert not (installed / "sub" / "x.txt").exists()
    assert "conf_echo" in registry.nodes()


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("", "name"),
        ("-u", "name"),
        ("/", "name"),
        ("..", "use a URL"),
        ("relative/pack", "use a URL"),
        ("http://example.test/pack", "use a URL"),
        ("ext::sh -c touch% /tmp/x", "use a URL"),
        ("--upload-pack=touch /tmp/x", "use a URL"),
        ("https://-oProxyCommand=x/pack", "use a URL"),
        ("-oProxyCommand=x@h:pack", "use a URL"),
        ("/no/such/folder/pack", "folder"),
        ("file:///no/such/folder/pack", "folder"),
    ],
)
async def test_invalid_sources_are_refused(
    client: httpx.AsyncClient, settings: Settings, source: str, word: str
) -> None:
    answer = await install(client, source)
    assert answer["success"] is False
    assert word in answer["message"]
    assert not list((settings.root / "nodes").glob("*"))


BROKEN = {
    "raises": ("raise RuntimeError('broken on purpose')", "broken on purpose"),
    "exits": ("import sys; sys.exit(3)", "SystemExit"),
    "dies": ("import os; os._exit(3)", "ended"),
    "wrong": ("this is no Python", "SyntaxError"),
    "needs": ("import no_such_library", "no_such_library"),
    "asks": ("from invokeai.invocation_api import no_such_name", "no_such_name"),
    "hangs": ("import time; time.sleep(60)", "took more than"),
    "second": (SECOND_ADD, "already registered"),
    "json": ("", "already the name"),
    "numpy": ("", "already the name"),
    "invokeclone": ("", "already the name"),
}


async def test_broken_packs_do_not_affect_other_packs(
    served: tuple[Application, httpx.AsyncClient], settings: Settings
) -> None:
    """A pack may not take the name of a module that is there either."""
    app, client = served
    app.services.get(Packs)._timeout_s = 10
    folder = settings.root / "nodes"
    for name, (init, _word) in BROKEN.items():
        write_pack(folder, name, init=init)
    write_pack(folder, "zz_good", prefix="good")
    nodes = set(registry.nodes())
    status = (await client.post(f"{BASE}/reload")).json()["status"]
    reasons = dict(part.split(" not loaded: ", 1) for part in status.split("; ")[1:] if " not loaded: " in part)
    assert set(reasons) == set(BROKEN)
    for name, (_init, word) in BROKEN.items():
        assert word in reasons[name], name
    assert set(registry.nodes()) - nodes == {"good_cook", "good_echo", "good_shout"}
    assert {pack["name"]: pack["node_count"] for pack in await list_packs(client)} == {
        **dict.fromkeys(BROKEN, 0),
        "zz_good": 3,
    }


async def test_a_broken_pack_is_not_installed(client: httpx.AsyncClient, settings: Settings, elsewhere: Path) -> None:
    nodes = set(registry.nodes())
    answer = await install(client, write_pack(elsewhere, init=NODES_AND_THEN_ERROR))
    assert (answer["success"], "broken on purpose" in answer["message"]) == (False, True)
    assert not list((settings.root / "nodes").glob("*"))
    assert set(registry.nodes()) == nodes


async def test_a_folder_without_init_is_refused(client: httpx.AsyncClient, elsewhere: Path) -> None:
    pack = write_pack(elsewhere)
    (pack / "__init__.py").unlink()
    answer = await install(client, pack)
    assert (answer["success"], "__init__.py" in answer["message"]) == (False, True)


async def test_a_pack_with_missing_dependencies_loads_after_a_reload(
    client: httpx.AsyncClient, settings: Settings, elsewhere: Path
) -> None:
    pack = write_pack(elsewhere, init="import library_of_the_test\nfrom .nodes import *\n")
    (pack / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["library-of-the-test"]\n')
    answer = await install(client, pack)
    assert (answer["success"], answer["dependency_file"]) == (True, "pyproject.toml")
    assert "library_of_the_test" in answer["message"]
    assert [(entry["name"], entry["node_count"]) for entry in await list_packs(client)] == [("conf_pack", 0)]
    init = settings.root / "nodes" / "conf_pack" / "__init__.py"
    init.write_text("from .nodes import *\n")
    status = (await client.post(f"{BASE}/reload")).json()
    assert set(status) == {"status"}
    assert [entry["node_count"] for entry in await list_packs(client)] == [3]


async def test_reload_picks_up_changes_on_disk(client: httpx.AsyncClient, settings: Settings, elsewhere: Path) -> None:
    await install(client, write_pack(elsewhere))
    folder = settings.root / "nodes"
    write_pack(folder, "second", prefix="second")
    write_pack(folder, "broken", init="1/0")
    write_pack(folder, "has.dot")
    (folder / "conf_pack" / "__init__.py").write_text("")
    status = (await client.post(f"{BASE}/reload")).json()["status"]
    assert "broken" in status
    assert {pack["name"]: pack["node_count"] for pack in await list_packs(client)} == {
        "broken": 0,
        "conf_pack": 0,
        "second": 3,
    }


async def test_packs_are_loaded_at_startup(settings: Settings) -> None:
    folder = settings.root / "nodes"
    write_pack(folder, "alpha", init="import os; os._exit(1)")
    write_pack(folder, "beta")
    (folder / ".installing-old" / "x").mkdir(parents=True)
    async with running(settings) as (_app, client):
        assert {pack["name"]: pack["node_count"] for pack in await list_packs(client)} == {"alpha": 0, "beta": 3}
        assert "conf_echo" in registry.nodes()
        assert not (folder / ".installing-old").exists()
    assert "conf_echo" not in registry.nodes()


async def test_removing_unknown_packs_deletes_nothing(client: httpx.AsyncClient, settings: Settings) -> None:
    (settings.root / "nodes").mkdir()
    (settings.root / "keep").mkdir()
    for name in ("nope", "..", "%2e%2e", "..%2fkeep"):
        answer = await client.delete(f"{BASE}/{name}")
        assert answer.status_code in {200, 404, 405}
        if answer.status_code == 200:
            assert answer.json()["success"] is False
    assert (settings.root / "keep").is_dir()


async def test_removing_a_symlinked_pack_keeps_its_target(
    client: httpx.AsyncClient, settings: Settings, elsewhere: Path
) -> None:
    pack = write_pack(elsewhere)
    (settings.root / "nodes").mkdir()
    (settings.root / "nodes" / "conf_pack").symlink_to(pack)
    await client.post(f"{BASE}/reload")
    assert [entry["node_count"] for entry in await list_packs(client)] == [3]
    assert (await client.delete(f"{BASE}/conf_pack")).json()["success"] is True
    assert (pack / "nodes.py").is_file()
    assert await list_packs(client) == []


async def test_git_fetch_times_out(
    settings: Settings, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    with pytest.raises(sources.SourceError, match="took more than"):
        await sources.fetch("https://example.test/pack", tmp_path / "target", settings, timeout_s=0.3)


async def test_missing_git_is_reported(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sources.SourceError, match="not installed"):
        await sources.fetch("https://example.test/pack", tmp_path / "target", settings)


async def test_concurrent_installs_of_a_pack_succeed_once(client: httpx.AsyncClient, elsewhere: Path) -> None:
    pack = write_pack(elsewhere)
    answers = await asyncio.gather(*(install(client, pack) for _time in range(2)))
    assert sorted(answer["success"] for answer in answers) == [False, True]
    assert any("already" in answer["message"] for answer in answers)
    assert len(await list_packs(client)) == 1


async def test_routes_require_an_admin(served: tuple[Application, httpx.AsyncClient]) -> None:
    app, client = served
    app.dependency_overrides[current_user] = lambda: User(user_id="alice")
    for method, path in (("GET", "/"), ("POST", "/install"), ("POST", "/reload"), ("DELETE", "/x")):
        assert (await client.request(method, f"{BASE}{path}", json={"source": "x"})).status_code == 403


async def test_a_pack_description_cannot_reference_foreign_modules(settings: Settings) -> None:
    """What another process says of a pack is data: a place outside this project's modules is not looked up."""
    from invokeclone.custom_nodes.adopt import adopt

    description = {
        "outputs": [{"type": "odd_output", "name": "Odd", "doc": None, "fields": {"x": _field("ours", "os:system")}}],
        "nodes": [],
    }
    adopt("odd", description)
    assert registry.outputs()["odd_output"].model_fields["x"].annotation is Any
    registry.forget_pack("odd")


def _field(kind: str, location: str) -> dict[str, Any]:
    return {
        "annotation": {"kind": kind, "place": location},
        "title": None,
        "description": None,
        "extra": {"field_kind": "output"},
        "limits": {},
    }
