"""The intent of a batch of moves, which reserves its locations where other servers could move images there."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images import intent_log
from invokeclone.images.intent_log import Intent
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.relocation.store import Move
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources


class BatchIntent:
    """Lists and reserves the locations of a batch; does nothing for a database of one server, which has the journal."""

    def __init__(self, intent: Intent | None) -> None:
        self._intent = intent

    async def reserve(self, connection: AsyncConnection, moves: Sequence[Move]) -> None:
        """Reserve the locations, in the transaction that decides on the batch."""
        if self._intent is not None and moves:
            await intent_log.reserve(connection, self._intent, _locations(moves))

    async def write(self, moves: Sequence[Move]) -> None:
        """List the locations, after that transaction and before files change. Raises OSError."""
        if self._intent is not None:
            await in_thread(self._intent.write, IMAGES, _locations(moves))


def _locations(moves: Sequence[Move]) -> list[ImageLocation]:
    return [ImageLocation(move.name, subfolder) for move in moves for subfolder in (move.origin, move.target)]


@contextlib.asynccontextmanager
async def open_batch(resources: Resources) -> AsyncIterator[BatchIntent]:
    """Give an intent to a block that moves a batch or recovers one; when it fails, files without a record are removed."""
    if not resources.database.is_shared:
        yield BatchIntent(None)
        return
    async with intent_log.open_intent(resources) as intent:
        await in_thread(intent.create)
        yield BatchIntent(intent)
