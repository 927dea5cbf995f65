"""Deleting records and then their files, so that an interruption leaves at most files that an intent lists.

The transaction waits for no disk: the intent is written before it begins. A transaction that deletes other records as
well, which were added in the meantime, is rolled back, and runs again after those were added to the intent.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from anyio import CancelScope
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images import files, intent_log, store
from invokeclone.images.events import ImagesDeletedEvent
from invokeclone.images.media_kinds import MediaKind
from invokeclone.images.schemas import AffectedItem, ImageLocation
from invokeclone.images.store import Selection
from invokeclone.kit import log
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.threads import in_storage_thread

Deleted = Mapping[MediaKind, list[AffectedItem]]
DeleteRecords = Callable[[AsyncConnection], Awaitable[Deleted]]
_Locations = Mapping[MediaKind, list[ImageLocation]]

_log = log.get("images")


class _NotListed(Exception):
    """The transaction would delete records that the intent does not list; it is rolled back."""

    def __init__(self, locations: _Locations) -> None:
        super().__init__(locations)
        self.locations = locations


async def delete_records_and_files(
    resources: Resources, selections: Sequence[Selection], delete_records: DeleteRecords | None = None
) -> Deleted:
    """Delete the records of `selections`, emit the events, remove the files, and return what was deleted.

    `delete_records` runs instead of the plain deletion, perhaps several times; it deletes records of `selections` only.
    """
    if delete_records is None:

        async def delete_records(connection: AsyncConnection) -> Deleted:
            return {selection.kind: await store.delete_selection(connection, selection) for selection in selections}

    async with intent_log.open_intent(resources) as intent:
        async with resources.database.read() as connection:
            expected = [(selection.kind, await store.list_locations(connection, selection)) for selection in selections]
        deleted = await _delete_listed(resources, intent, dict(expected), delete_records)
        for items in filter(None, deleted.values()):
            resources.events.emit(ImagesDeletedEvent(image_names=[item.location.name for item in items]))
        for kind, items in deleted.items():
            intent.settled &= await _remove_files(resources, [item.location for item in items], kind)
    return deleted


async def _delete_listed(
    resources: Resources, intent: intent_log.Intent, locations: _Locations, delete_records: DeleteRecords
) -> Deleted:
    """Delete records whose files the intent lists by then, `locations` and what else turns out to be deleted."""
    listed = set[tuple[MediaKind, ImageLocation]]()
    while True:
        for kind, some in locations.items():
            await in_thread(intent.try_write, kind, some)
            listed |= {(kind, location) for location in some}
        try:
            async with resources.database.write() as connection:
                deleted = await delete_records(connection)
                _require_listed(deleted, listed)
        except _NotListed as error:
            locations = error.locations
        else:
            return deleted


def _require_listed(deleted: Deleted, listed: set[tuple[MediaKind, ImageLocation]]) -> None:
    missing = {
        kind: [item.location for item in items if (kind, item.location) not in listed]
        for kind, items in deleted.items()
    }
    if any(missing.values()):
        raise _NotListed(missing)


async def _remove_files(resources: Resources, locations: list[ImageLocation], kind: MediaKind) -> bool:
    """Remove the files of deleted records; return whether all could be removed. Others stay until intents are settled."""
    if not locations:
        return True
    try:
        with CancelScope(shield=True):
            failed = await in_storage_thread(files.remove, resources.storage, locations, kind)
    except OSError as error:
        _log.warning("could not remove the files of %d deleted %ss yet: %s", len(locations), kind, error)
        return False
    for location in failed:
        _log.warning("could not remove the files of the deleted %s %s yet", kind, location.name)
    return not failed
