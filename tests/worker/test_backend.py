"""What the server accepts from a joined worker: only operations for a claim that it holds, with valid arguments."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from invokeclone.graph.context import CanceledException
from invokeclone.graph.sizes import SizeOverLimit
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import service as images
from invokeclone.images import store as images_store
from invokeclone.images.errors import ImageNotFound
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.resources import Resources
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.backend import errors
from invokeclone.worker.backend.dispatch import NameTaken
from invokeclone.worker.backend.errors import NotOnThisWorker
from invokeclone.worker.backend.joined import run_operation
from invokeclone.worker.backend.operations import OPERATIONS, Holder
from invokeclone.worker.backend.protocol import NodeImage
from invokeclone.worker.backend.remote import RemoteBackend
from invokeclone.worker.backend.transfers import ImageTransfers, InvalidTransfer, pack
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.runner import SessionRunner
from tests.worker.joined import WORKER, Claims, Link, join

FIELDS = NodeImage(category=ImageCategory.GENERAL, node_id="n", metadata='{"seed":1}', graph="{}")
JUNK: list[Any] = [
    {},
    {"name": 1},
    {"key": ["x"]},
    {"item_ids": "all"},
    {"unknown": 1},
    {"path": None},
    [],
    None,
    "x",
    7,
]


@pytest.fixture
async def item(make: Any, claims: Claims) -> ClaimedItem:
    return await claims.add(make.item({"a": {"type": "toy_number"}}))


@pytest.fixture
def backend(tools: Tools, link: Link, tmp_path: Path) -> RemoteBackend:
    remote = join(tools, link, tmp_path / "joined").remote
    assert isinstance(remote, RemoteBackend)
    return remote


def files_of(resources: Resources) -> list[Path]:
    return [path for path in resources.settings.outputs_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", [*OPERATIONS, "claim", "__init__", "item", ""])
async def test_invalid_arguments_are_an_error_and_never_a_crash(link: Link, item: ClaimedItem, name: str) -> None:
    for arguments in JUNK:
        response = await link.dispatcher.dispatch(name, arguments, Holder(WORKER, item.item_id, 0))
        if "error" in response:
            assert response["error"]["type"] in {"InvalidArguments", "UnknownOperation"}
        else:  # an operation without (required) arguments
            assert arguments in ({}, {"path": None})
        orjson.dumps(response)


@pytest.mark.parametrize("holder", [(WORKER, 1, 7), (WORKER, 2, 0), ("another", 1, 0), (WORKER, None, None)])
async def test_an_operation_needs_the_claim(link: Link, item: ClaimedItem, holder: Any) -> None:
    assert item.item_id == 1
    assert "result" in await link.dispatcher.dispatch("create_board", {"name": "mine"}, Holder(WORKER, 1, 0))
    response = await link.dispatcher.dispatch("create_board", {"name": "late"}, Holder(*holder))
    assert response["error"]["type"] == "CanceledException"
    boards = await link.dispatcher.dispatch("boards", {}, Holder(WORKER, 1, 0))
    assert [board["board_name"] for board in boards["result"]] == ["mine"]


async def test_unexpected_errors_are_logged_and_not_sent(
    link: Link, item: ClaimedItem, resources: Resources, logged: Any
) -> None:
    await resources.database.close()
    resources.database = None  # type: ignore[assignment]
    response = await link.dispatcher.dispatch("boards", {}, Holder(WORKER, item.item_id, 0))
    assert response["error"]["type"] == "OperationFailed"
    assert "NoneType" not in response["error"]["message"]
    assert any(line.exc_info for line in logged)


@pytest.mark.parametrize(
    "error", [ImageNotFound("x.png"), CanceledException("gone"), OSError(28, "No space left on device")]
)
def test_errors_keep_class_and_text(error: Exception) -> None:
    sent = orjson.loads(orjson.dumps(errors.encode(error, "x")))
    with pytest.raises(type(error)) as info:
        errors.raise_decoded(sent)
    assert str(error).removeprefix("[Errno 28] ") in str(info.value)
    assert getattr(info.value, "errno", None) == getattr(error, "errno", None)


async def test_operations_without_an_effect_are_repeated_after_a_cut(
    link: Link, item: ClaimedItem, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invokeclone.worker.backend.remote.RETRY_S", (0, 0))
    cuts = [2]

    async def call(method: str, message: dict[str, Any]) -> dict[str, Any]:
        if cuts[0]:
            cuts[0] -= 1
            raise ConnectionError("cut")
        return await link.call(method, message)

    images = ImageTransfers(link, tools.resources.settings, tmp_path, 0)
    backend = RemoteBackend(call, images, lambda _: pytest.fail("no model is used")).item(item)
    assert await backend.boards() == []
    cuts[0] = 1
    with pytest.raises(ConnectionError):
        await backend.create_board("once")
    assert await backend.boards() == []


@pytest.mark.parametrize("joined", [False, True])
async def test_a_late_image_is_refused_and_leaves_nothing(
    tools: Tools,
    backend: RemoteBackend,
    joined: bool,
    claims: Claims,
    resources: Resources,
    make: Any,
    monkeypatch: Any,
) -> None:
    item = await claims.add(make.item({"a": {"type": "toy_number"}}, fence=3))
    running = (backend if joined else tools.backend).item(item)
    image = Image.new("RGB", (8, 8), "red")
    saved = await running.save_image(image, FIELDS)
    before = files_of(resources)
    assert len(before) == 2
    assert (saved.session_id, saved.node_id, saved.has_workflow) == (item.session_id, "n", True)

    # The claim is lost while the request is on its way, or after its files were written.
    record = images.create_record

    async def lose(*arguments: Any, **named: Any) -> Any:
        await claims.lose()
        return await record(*arguments, **named)

    monkeypatch.setattr(images, "create_record", lose)
    for _ in range(2):
        with pytest.raises(CanceledException):
            await running.save_image(image, FIELDS)
        assert files_of(resources) == before


async def test_an_image_whose_response_was_lost_is_stored_once(
    backend: RemoteBackend, item: ClaimedItem, link: Link, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invokeclone.worker.backend.transfers.RETRY_S", (0, 0))
    link.cuts = 2
    saved = await backend.item(item).save_image(Image.new("L", (4, 4)), FIELDS)
    assert await images_store.get(resources.database, saved.image_name) == saved
    assert len(files_of(resources)) == 2


async def test_requests_for_one_image_at_the_same_time_store_it_once(
    link: Link, item: ClaimedItem, resources: Resources
) -> None:
    body, holder = pack(Image.new("L", (4, 4)), FIELDS, 1), Holder(WORKER, item.item_id, 0)
    records = await asyncio.gather(*(link.dispatcher.receive_image(body, holder) for _ in range(3)))
    assert records[0] == records[1] == records[2]
    assert len(files_of(resources)) == 2


async def test_an_image_does_not_replace_that_of_another_session(
    link: Link, item: ClaimedItem, claims: Claims, resources: Resources
) -> None:
    body = pack(Image.new("L", (4, 4)), FIELDS, 1)
    await link.dispatcher.receive_image(body, Holder(WORKER, 1, 0))
    await claims.add(replace(item, item_id=2, session_id="another"))
    with pytest.raises(NameTaken):
        await link.dispatcher.receive_image(body, Holder(WORKER, 2, 0))
    assert len(files_of(resources)) == 2


def damaged(change: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]) -> bytes:
    """Return the body of a request whose header and files are changed."""
    body = pack(Image.new("L", (4, 4)), FIELDS, 1)
    end = 4 + struct.unpack_from(">I", body)[0]
    fields, rest = change(orjson.loads(body[4:end]), body[end:])
    text = orjson.dumps(fields)
    return struct.pack(">I", len(text)) + text + rest


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0",
        b"\xff\xff\xff\xff{}",
        damaged(lambda header, rest: (header | {"name": "../../x.png"}, rest)),
        damaged(lambda header, rest: (header | {"name": "X" * 36 + ".png"}, rest)),
        damaged(lambda header, rest: (header | {"category": "x"}, rest)),
        damaged(lambda header, rest: (header | {"user_id": "x"}, rest)),
        damaged(lambda header, rest: (header | {"thumbnail_size": 1}, rest)),
        damaged(lambda header, rest: (header | {"thumbnail_size": 10**9}, rest)),
        damaged(lambda header, rest: (header | {"metadata": "["}, rest)),
        damaged(lambda header, rest: (header | {"metadata": "7"}, rest)),
        damaged(lambda header, rest: (header, b"RIFF" + rest[8:])),
        damaged(lambda header, rest: (header, rest[:-1])),
        damaged(lambda header, rest: (header, rest + b"x")),
        damaged(lambda header, rest: (header, rest[: header["thumbnail_size"]])),
    ],
)
async def test_a_damaged_transfer_is_refused(link: Link, item: ClaimedItem, resources: Resources, body: bytes) -> None:
    with pytest.raises(InvalidTransfer):
        await link.dispatcher.receive_image(body, Holder(WORKER, item.item_id, 0))
    assert not files_of(resources)


async def test_an_image_over_the_limits_is_refused(link: Link, item: ClaimedItem, resources: Resources) -> None:
    body = pack(Image.new("L", (11, 10)), FIELDS, 1)
    resources.settings = resources.settings.model_copy(update={"limits": Limits(node_pixels=100)})
    with pytest.raises(SizeOverLimit):
        await link.dispatcher.receive_image(body, Holder(WORKER, item.item_id, 0))
    assert not files_of(resources)


async def test_fetched_images_are_kept_up_to_the_budget_between_items(
    link: Link, item: ClaimedItem, tools: Tools, tmp_path: Path
) -> None:
    local = tools.backend.item(item)
    names = [
        (await local.save_image(Image.new("RGB", (16, 16), color), FIELDS)).image_name for color in ("red", "blue")
    ]
    budget = max([(await local.image_file(name)).stat().size for name in names])
    files = ImageTransfers(link, tools.resources.settings, tmp_path / "fetched", budget)
    backend = RemoteBackend(link.call, files, lambda _: pytest.fail("no model is used"))
    for _ in range(2):
        running = backend.item(item)
        paths = [(await running.image_file(name)).path for name in names]
        assert [path.read_bytes() for path in paths if path] == [
            (await local.image_file(name)).read() for name in names
        ]
    assert len(link.requests) == 3  # the first was removed between the items
    both = await asyncio.gather(*(running.image_file(name, thumbnail=True) for name in (names[0], names[0])))
    assert both[0].name.endswith(".webp")
    assert len(link.requests) == 4
    with pytest.raises(ImageNotFound):
        await running.image_file("no.png")


# The nodes of a joined worker


async def test_folders_of_the_server_are_an_error_in_nodes(
    tools: Tools, link: Link, make: Any, toys: Any, canceled: Any, claims: Claims, tmp_path: Path
) -> None:
    joined = join(tools, link, tmp_path / "joined")
    found: list[Any] = []

    def use(context: Any) -> None:
        settings = context.config.get()
        found.append((settings.limits, settings.max_queue_size, settings.download_cache_path))
        for name in ("models_path", "outputs_path", "database_path", "fonts_path", "allowed_file_paths"):
            with pytest.raises(NotOnThisWorker, match="on the server's machine"):
                getattr(settings, name)

    toys.CALL.append(use)
    item = await claims.add(make.item({"a": {"type": "toy_context"}}))
    outcome = await asyncio.to_thread(SessionRunner(joined, make_context).run, item, canceled)
    toys.CALL.clear()
    assert (outcome.status, outcome.error) == ("completed", None)
    settings = tools.resources.settings
    assert found == [(settings.limits, settings.max_queue_size, settings.download_cache_path)]


async def test_a_node_of_a_pack_that_the_worker_lacks_is_named(
    tools: Tools, link: Link, make: Any, canceled: Any, tmp_path: Path
) -> None:
    item = make.item({"a": {"type": "toy_number"}})
    item = replace(item, session=item.session.replace('"toy_number"', '"toy_of_a_pack"'))
    joined = join(tools, link, tmp_path / "joined")
    outcome = await asyncio.to_thread(SessionRunner(joined, make_context).run, item, canceled)
    assert outcome.status == "failed"
    assert outcome.error
    assert "has no node toy_of_a_pack: install the node pack" in outcome.error.error_message


async def test_a_canceled_node_does_not_wait_for_the_connection(
    tools: Tools, link: Link, make: Any, toys: Any, canceled: Any, claims: Claims, tmp_path: Path
) -> None:
    joined = join(tools, link, tmp_path / "joined")
    waiting = asyncio.Event()

    async def call(_method: str, _message: dict[str, Any]) -> dict[str, Any]:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError("the connection stays cut")

    assert isinstance(joined.remote, RemoteBackend)
    joined.remote._operations._call = call
    toys.CALL.append(lambda context: context.boards.get_all())
    item = await claims.add(make.item({"a": {"type": "toy_context"}}))
    running = asyncio.create_task(asyncio.to_thread(SessionRunner(joined, make_context).run, item, canceled))
    await asyncio.wait_for(waiting.wait(), 60)
    canceled.set()
    outcome = await asyncio.wait_for(running, 60)
    toys.CALL.clear()
    assert outcome.status == "canceled"


@pytest.mark.parametrize("message", [{}, {"item_id": 1}, {"item_id": "x", "fence": 0, "arguments": {}}, {"x": 1}])
async def test_a_message_that_is_no_operation_is_an_error(resources: Resources, message: Any) -> None:
    response = await run_operation(resources, WORKER, "boards", message)
    assert response["error"]["type"] == "InvalidArguments"


async def test_an_operation_is_run_for_the_calling_worker(resources: Resources, item: ClaimedItem) -> None:
    message = {"item_id": item.item_id, "fence": 0, "arguments": {}}
    assert await run_operation(resources, WORKER, "boards", message) == {"result": []}
    response = await run_operation(resources, "another", "boards", message)
    assert response["error"]["type"] == "CanceledException"
