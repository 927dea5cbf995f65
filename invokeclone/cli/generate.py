"""`invokeclone generate PROMPT --out FILE`: generate one image in this process, without a server.

The image goes to the gallery of the root and to the file. The queue item is inserted and set to `in_progress` in one
transaction, so that a server on the same root does not claim it.
"""

import argparse
import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic import ValidationError
from tqdm import tqdm

from invokeclone.cli import generate_inputs
from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.cli.resources import open_resources
from invokeclone.graph.invocations import registry
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.images import service as images
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.events import Event
from invokeclone.kit.files.image_files import open_stored_image
from invokeclone.kit.files.image_modes import convert
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, insertion
from invokeclone.queue import service as queue
from invokeclone.queue import store as queue_store
from invokeclone.queue.batches import Batch, expand
from invokeclone.queue.generation import GenerationRequest, ModelNotFound, generation_models, resolve
from invokeclone.queue.insertion import BatchColumns
from invokeclone.queue.rows import ClaimedItem
from invokeclone.users.current import SYSTEM
from invokeclone.worker.cache import InvocationCache
from invokeclone.worker.engine import Engine, first_device
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.process import own_folder
from invokeclone.worker.recent_images import RecentImages
from invokeclone.worker.runner import SessionRunner
from invokeclone.worker.tensors import TensorStore

FAILED = 1
BUDGET = 256 * 1024**2
FORMATS = (".png", ".jpg", ".jpeg", ".webp")
SCHEDULERS: tuple[str, ...] = get_args(SCHEDULER_NAME_VALUES)
DEVICE_NAME = "generate"
"""Name of this process's tensor folder. The item's row has no device, so no server takes it for its own workers'."""


class _Progress:
    """Receives the nodes' events: shows the progress and records the name of the finished image."""

    def __init__(self) -> None:
        self.image_name: str | None = None
        self._bar = tqdm(
            total=100, unit="%", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}", file=sys.stderr, leave=False
        )

    def event(self, name: str, data: bytes, *, droppable: bool = False) -> None:
        """Handle an event of a node."""
        del droppable
        if name == "invocation_progress":
            self._show(orjson.loads(data))
        elif name == "invocation_complete":
            content = orjson.loads(data)
            image = content["result"].get("image")
            if image and not content["invocation"]["is_intermediate"]:
                self.image_name = image["image_name"]

    def _show(self, progress: dict[str, Any]) -> None:
        self._bar.set_description_str(str(progress["message"])[:40], refresh=False)
        if progress["percentage"] is not None:
            self._bar.n = round(progress["percentage"] * 100)
        self._bar.refresh()

    def emit(self, event: Event) -> None:
        """Ignore an event of a service."""

    def close(self) -> None:
        """Remove the progress bar."""
        self._bar.close()


def run(arguments: argparse.Namespace) -> int:
    """Generate the image and return 0; raises CommandError for wrong use and for a failed generation."""
    _check(arguments)
    settings = settings_for(arguments, level="warning", uses=("database", "images", "models"))
    registry.discover()
    registry.restrict(settings.allow_nodes, settings.deny_nodes)

    async def work() -> int:
        async with open_resources(settings, with_embedded_model=True) as resources:
            batch = await _batch(resources, arguments)
            with contextlib.closing(_Progress()) as progress:
                item = await _start(resources, batch)
                await _finish(Resources(settings, resources.database, progress), item, progress)
            return await _write(resources, progress.image_name, arguments.out)

    return asyncio.run(work())


def _check(arguments: argparse.Namespace) -> None:
    """Raise CommandError for arguments that can be rejected before anything is loaded."""
    out: Path = arguments.out
    if out.suffix.lower() not in FORMATS:
        raise CommandError(f"{out}: the file must end in {', '.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise CommandError(f"{out.absolute().parent}: no such folder")
    if arguments.scheduler is not None and arguments.scheduler not in SCHEDULERS:
        raise CommandError(f"unknown scheduler {arguments.scheduler!r}; choose one of {', '.join(SCHEDULERS)}")


async def _batch(resources: Resources, arguments: argparse.Namespace) -> Batch:
    """Return the batch; settings that the arguments leave out are resolved as in any request. Raises CommandError."""
    try:
        request = GenerationRequest(
            prompt=arguments.prompt,
            negative_prompt=arguments.negative,
            model=arguments.model,
            seed=arguments.seed,
            steps=arguments.steps,
            cfg_scale=arguments.cfg,
            scheduler=arguments.scheduler,
            width=arguments.width,
            height=arguments.height,
            **generate_inputs.request_members(arguments),
        )
        async with resources.database.read() as connection:
            resolved = await resolve(connection, request)
        resolved = await generate_inputs.with_images(resources, resolved, arguments)
        return resolved.batch(origin="generate", destination=None)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise CommandError("; ".join(problems)) from error
    except ModelNotFound as error:
        async with resources.database.read() as connection:
            names = [repr(model.name) for model in await generation_models(connection)]
        raise CommandError(f"{error}; installed models: {', '.join(names) or 'none'}") from error
    except InvokeCloneError as error:
        raise CommandError(str(error)) from error


async def _start(resources: Resources, batch: Batch) -> ClaimedItem:
    """Insert the batch's one item into the queue as `in_progress`."""
    new = next(iter(expand(batch, 1)))
    async with resources.database.write() as connection:
        columns = BatchColumns(
            queue.DEFAULT_QUEUE, batch.batch_id, 0, batch.origin, batch.destination, SYSTEM.user_id, None
        )
        (item_id,) = await insertion.add(connection, [new], columns)
        item = await queue_store.set_status(connection, item_id, "in_progress")
    if item is None:
        raise CommandError("the queue was cleared before the item could start", FAILED)
    return ClaimedItem(
        **asdict(item), session=new.session, workflow=None, field_values=new.field_values, retried_from_item_id=None
    )


async def _finish(resources: Resources, item: ClaimedItem, progress: _Progress) -> None:
    """Run the item and write its terminal status; raises CommandError when it failed."""
    canceled = threading.Event()
    outcome = Outcome("canceled", None)
    try:
        with _tools(resources, progress) as tools:
            outcome = await in_thread(SessionRunner(tools, make_context).run, item, canceled)
    finally:
        canceled.set()
        session = outcome.session_json
        await claims.finish(resources, item.item_id, outcome.status, session_json=session, error=outcome.error)
    if outcome.error is not None:
        raise CommandError(f"{outcome.error[0]}: {outcome.error[1]}", FAILED)


@contextlib.contextmanager
def _tools(resources: Resources, progress: _Progress) -> Iterator[Tools]:
    settings = resources.settings
    device = first_device(settings.device)
    tools = Tools(
        resources=resources,
        loop=asyncio.get_running_loop(),
        device=device,
        channel=progress,
        cache=InvocationCache(0),
        tensors=TensorStore(own_folder(settings.outputs_path / "tensors", DEVICE_NAME), BUDGET),
        images=RecentImages(BUDGET),
        engine=Engine(settings, device),
    )
    try:
        yield tools
    finally:
        tools.tensors.close()


async def _write(resources: Resources, image_name: str | None, out: Path) -> int:
    """Copy the image from the gallery to `out`, in the format of its suffix; a PNG keeps its metadata."""
    if image_name is None:
        raise CommandError("the generation produced no image", FAILED)
    file = await images.file(resources, image_name)

    def copy() -> None:
        if out.suffix.lower() == ".png":
            out.write_bytes(file.read())
            return
        with open_stored_image(file.source()) as image:
            convert(image, "RGB").save(out, quality=95)

    try:
        await in_thread(copy)
    except OSError as error:
        raise CommandError(f"{out}: {error.strerror}; the image is in the gallery as {image_name}", FAILED) from error
    sys.stdout.write(f"{out}\n")
    return 0
