"""The server's side of the operations of joined workers: runs each locally, with the rights of the item's user."""

from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.context import CanceledException
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.taxonomy import ResourceOrigin
from invokeclone.images import intent_log
from invokeclone.images import service as images
from invokeclone.images import store as images_store
from invokeclone.images.errors import ImageNotFound
from invokeclone.images.files import subfolder
from invokeclone.images.schemas import ImageDTO, NewImage
from invokeclone.kit.errors import Unprocessable
from invokeclone.kit.process.offload import in_thread, off_loop
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.queue import leases
from invokeclone.queue.calls.chain import CalledSession
from invokeclone.queue.leases import ItemNotHeld
from invokeclone.queue.rows import Item
from invokeclone.worker.backend import errors
from invokeclone.worker.backend.local import LocalBackend, LocalItem
from invokeclone.worker.backend.operations import OPERATIONS, Holder, Operation, SuspendArguments, UnknownOperation
from invokeclone.worker.backend.transfers import SentImage


class InvalidArguments(Unprocessable):
    """The arguments of an operation are not valid."""


class NameTaken(Unprocessable):
    """Another image has the name that a worker chose."""


class Dispatcher:
    """Runs the operations of joined workers."""

    def __init__(self, resources: Resources) -> None:
        """Use `resources`."""
        self._resources = resources
        self._backend = LocalBackend(resources)

    async def dispatch(self, method: str, arguments: dict[str, Any], holder: Holder) -> dict[str, Any]:
        """Return the `result` of an operation as JSON, or its `error` (see `errors.raise_decoded`); never raises."""
        try:
            operation = _find(method)
            result = await self._run(operation, _validate(operation, arguments), holder)
            return {"result": operation.result.dump_python(result, mode="json")}
        except Exception as error:  # noqa: BLE001  (the worker must get a response to each operation)
            return {"error": errors.encode(error, method[:100])}

    async def _run(self, operation: Operation, arguments: BaseModel, holder: Holder) -> Any:
        named = dict(arguments)
        if not operation.of_item:
            return await getattr(self._backend, operation.name)(**named)
        try:
            row = await self._read_held(holder)
        except ItemNotHeld as error:
            raise CanceledException(str(error)) from error
        item = LocalItem(self._resources, row, holder.fence or 0)
        if isinstance(arguments, SuspendArguments):
            return await _suspend(item, row, arguments)
        return await getattr(item, operation.name)(**named)

    async def image_file(self, name: str, holder: Holder, *, thumbnail: bool = False) -> StoredFile:
        """Return the file of an image that the item's user may read. Raises ItemNotHeld, ImageNotFound, ImageNotYours."""
        row = await self._read_held(holder)
        return await LocalItem(self._resources, row, holder.fence or 0).image_file(name, thumbnail=thumbnail)

    async def receive_image(self, body: bytes, holder: Holder) -> ImageDTO:
        """Store an image that a worker sent for an item that it holds (see `transfers.py`).

        The same request again returns the same record. Raises ItemNotHeld, and then nothing is left; InvalidTransfer,
        SizeOverLimit, NameTaken, OSError.
        """
        row = await self._read_held(holder)
        sent = await in_thread(SentImage, body)
        header, settings = sent.header, self._resources.settings
        check_pixels(sent.width, sent.height, settings.limits, f"node {header.node_id}")
        # A repeated request may overtake the first, also on another server; the lock is held until a failed one is undone.
        async with self._resources.database.lock([intent_log.lock_key(header.name)]):
            if (stored := await self._find_stored(header.name, row)) is not None:
                return stored
            try:
                return await self._store(sent, row, holder)
            except FileExistsError as error:
                raise NameTaken(f"another image has the name {header.name}") from error
            except IntegrityError:  # the lock was lost with its connection
                if (stored := await self._find_stored(header.name, row)) is None:
                    raise
                return stored

    async def _store(self, sent: SentImage, row: Item, holder: Holder) -> ImageDTO:
        header, settings = sent.header, self._resources.settings
        folder = subfolder(
            settings.image_subfolder_strategy, header.name, header.category, is_intermediate=header.is_intermediate
        )
        new = NewImage(
            image_name=header.name,
            image_origin=ResourceOrigin.INTERNAL,
            image_category=header.category,
            width=sent.width,
            height=sent.height,
            session_id=row.session_id,
            node_id=header.node_id,
            metadata=header.metadata,
            is_intermediate=header.is_intermediate,
            has_workflow=header.has_workflow,
            image_subfolder=folder,
            board_id=header.board_id,
            user_id=row.user_id,
        )

        async def check(connection: AsyncConnection) -> None:
            await leases.require_claim(connection, row.item_id, holder.fence or 0)

        return await images.save_encoded(self._resources, new, sent.png, sent.webp, check)

    async def _read_held(self, holder: Holder) -> Item:
        """Return the item that a claim holds. Raises ItemNotHeld."""
        if holder.item_id is None or holder.fence is None:
            raise ItemNotHeld(holder.item_id or 0)
        return await leases.get_held_item(self._resources.database, holder.worker_id, holder.item_id, holder.fence)

    async def _find_stored(self, name: str, row: Item) -> ImageDTO | None:
        """Return the record of an image that was stored although its worker did not get the response."""
        try:
            record = await images_store.get(self._resources.database, name)
        except ImageNotFound:
            return None
        if record.session_id != row.session_id:
            raise NameTaken(f"another image has the name {name}")
        return record


def _find(method: str) -> Operation:
    if method not in OPERATIONS:
        raise UnknownOperation(f"unknown operation {method[:100]!r}: run the same version on server and worker")
    return OPERATIONS[method]


def _validate(operation: Operation, arguments: object) -> BaseModel:
    try:
        return operation.arguments.model_validate(arguments)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        texts = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:3])
        raise InvalidArguments(f"invalid arguments of {operation.name}: {'; '.join(texts)}") from error


async def _suspend(item: LocalItem, row: Item, arguments: SuspendArguments) -> list[int]:
    """Suspend the item, and return the ids of the items that it waits for."""
    try:
        state, called = await off_loop(lambda: _parse_sessions(arguments))
    except ValidationError as error:
        raise InvalidArguments(f"invalid session: {error.errors(include_url=False)[0]['msg']}") from error
    execution = state.waiting_workflow_call_execution
    if execution is None or state.id != row.session_id:
        raise InvalidArguments(f"the session is not that of item {row.item_id}, or waits for no call")
    if [session.session_id for session in called] != execution.child_session_ids:
        raise InvalidArguments("the called sessions are not those that the session waits for")
    await item.suspend(state, called, arguments.workflow)
    return list(execution.child_item_ids)


def _parse_sessions(arguments: SuspendArguments) -> tuple[GraphExecutionState, list[CalledSession]]:
    states = [GraphExecutionState.model_validate_json(text) for text in arguments.called]
    called = [CalledSession(state.id, state.to_json()) for state in states]
    return GraphExecutionState.model_validate_json(arguments.state), called
