"""Creating lost thumbnails again: once for all requests that ask for one, and not again and again if it cannot be done.

A file that is not decodable stays so, and a storage that takes no new objects may have to be read from for long: the
outcome is remembered for a while, because making a thumbnail reads the whole image or video.
"""

import errno
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from invokeclone.images import files, intent_log, store
from invokeclone.images.media_kinds import MediaKind
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.files.storage_errors import StorageUnreachable, to_storage_error
from invokeclone.kit.process.loop_local import LoopLocal
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.key_locks import KeyLocks, key_of
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.kit.storage.threads import in_storage_thread

MAX_OUTCOMES = 1000
REMEMBERED_S = 3600.0

_log = log.get("images.thumbnails")


class NotDecodable(Exception):
    """The image or video cannot be decoded, now or later; `error` is the response."""

    def __init__(self, error: InvokeCloneError) -> None:
        super().__init__(str(error))
        self.error = error


class _Outcomes:
    """Thumbnails that could not be stored, and errors, by name."""

    def __init__(self) -> None:
        self.locks = KeyLocks()
        self.outage_at = float("-inf")
        """When an attempt failed as the storage did not respond."""
        self._outcomes: OrderedDict[str, tuple[float, bytes | InvokeCloneError]] = OrderedDict()

    def add(self, name: str, outcome: bytes | InvokeCloneError) -> None:
        """Remember an outcome, and forget the oldest over the limit."""
        self._outcomes[name] = time.monotonic() + REMEMBERED_S, outcome
        while len(self._outcomes) > MAX_OUTCOMES:
            self._outcomes.popitem(last=False)

    def get(self, name: str) -> bytes | None:
        """Return the remembered thumbnail, None without one; raises the remembered error."""
        until, outcome = self._outcomes.get(name, (0.0, None))
        if until < time.monotonic():
            self._outcomes.pop(name, None)
            return None
        if isinstance(outcome, InvokeCloneError):
            raise outcome.with_traceback(None)
        return outcome


_OUTCOMES = LoopLocal("thumbnails that could not be created or stored", _Outcomes)


async def regenerate(
    resources: Resources, name: str, kind: MediaKind, make: Callable[[ImageLocation], Awaitable[bytes]]
) -> bytes:
    """Create and store the lost thumbnail of an image or video, which `make` makes from its file.

    Raises the kind's error when the file is missing, or damaged, and the error of NotDecodable; StorageUnreachable also
    if another request failed with it meanwhile, so that they do not wait for the service one after the other.
    """
    outcomes = _OUTCOMES.get()
    began_at = time.monotonic()
    async with outcomes.locks.hold([key_of(f"{kind} {name}")]):
        if (webp := outcomes.get(name)) is not None:
            return webp
        if outcomes.outage_at > began_at:
            raise StorageUnreachable(errno.EHOSTUNREACH, "no response in time", name)
        try:
            return await _regenerate(resources, outcomes, name, kind, make)
        except StorageUnreachable:
            outcomes.outage_at = time.monotonic()
            raise


async def _regenerate(
    resources: Resources,
    outcomes: _Outcomes,
    name: str,
    kind: MediaKind,
    make: Callable[[ImageLocation], Awaitable[bytes]],
) -> bytes:
    """Return the thumbnail if another request has created it, or create and store it."""
    location = await store.get_location(resources.database, name, kind)
    try:
        return await in_storage_thread(StoredFile(resources.storage, files.thumbnail_key(location, kind)).read)
    except FileNotFoundError:  # else another request has created it
        pass
    try:
        webp = await make(location)
    except NotDecodable as error:
        outcomes.add(name, error.error)
        raise error.error from error
    except OSError as error:
        if to_storage_error(error) is not None:
            raise
        raise kind.not_found_error(name) from error
    if not await _store(resources, location, kind, webp):
        outcomes.add(name, webp)
    return webp


async def _store(resources: Resources, location: ImageLocation, kind: MediaKind, webp: bytes) -> bool:
    """Store a thumbnail, and return whether that succeeded; raises the kind's error for a record that is deleted by then."""

    def write(intent: intent_log.Intent) -> None:
        intent.write(kind, [location])
        resources.storage.write(files.thumbnail_key(location, kind), webp, replace=True)

    async with intent_log.open_intent(resources) as intent:
        try:
            await in_storage_thread(intent.run, write)
        except OSError as error:
            if isinstance(error, StorageUnreachable):
                raise
            _log.warning("the thumbnail of %s %s cannot be stored: %s", kind, location.name, error)
            return False
        await store.get_location(resources.database, location.name, kind)  # it may have been deleted in the meantime
    return True
