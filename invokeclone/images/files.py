"""Files of images and videos: keys in the storage, thumbnails, writing and removing.

A file is never changed once written. Names and subfolders come from records, never directly from a request.
"""

import io
from datetime import datetime
from pathlib import Path, PurePosixPath

from PIL import Image

from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.image_files import open_stored_image
from invokeclone.kit.files.image_modes import orientation, swaps_sides, upright, visible
from invokeclone.kit.files.storage_errors import to_storage_error
from invokeclone.kit.storage.protocol import ObjectStorage, StoredFile

THUMBNAIL_SIDE = 256
THUMBNAIL_EFFORT = 0
"""WebP effort: 4 (Pillow's default) takes more than twice the time for 5 % less size at equal fidelity."""


def full_key(location: ImageLocation, kind: MediaKind = IMAGES) -> str:
    """Return the key of the file at `location`."""
    return _key(f"{kind}s", location.subfolder, location.name)


def thumbnail_key(location: ImageLocation, kind: MediaKind = IMAGES) -> str:
    """Return the key of the thumbnail at `location`."""
    return _key(f"{kind}s", "thumbnails", location.subfolder, f"{PurePosixPath(location.name).stem}.webp")


def sidecar_key(location: ImageLocation) -> str:
    """Return the key of a video's sidecar file, which has the texts that a video file does not contain."""
    return _key(f"{VIDEOS}s", "sidecars", location.subfolder, f"{PurePosixPath(location.name).stem}.json")


def _key(*components: str) -> str:
    return "/".join(component for component in components if component)


def keys(location: ImageLocation, kind: MediaKind = IMAGES) -> list[str]:
    """Return the keys of all files at `location`, whether they exist or not."""
    media_keys = [full_key(location, kind), thumbnail_key(location, kind)]
    return [*media_keys, sidecar_key(location)] if kind is VIDEOS else media_keys


def uploads_folder(settings: Settings) -> Path:
    """Return the local folder where videos lie while they are being uploaded."""
    return settings.outputs_path / f"{VIDEOS}s" / ".uploads"


def subfolder(strategy: str, name: str, category: ImageCategory, *, is_intermediate: bool) -> str:
    """Return the subfolder for a new image: none, by local date, by type, or by the first two letters of its name."""
    match strategy:
        case "date":
            return str(PurePosixPath(datetime.now().astimezone().strftime("%Y/%m/%d")))
        case "type":
            return "intermediate" if is_intermediate else category.value
        case "hash":
            return name[:2]
        case _:
            return ""


def thumbnail(image: Image.Image) -> bytes:
    """Return a WebP of `image`, upright, with no side over 256, never enlarged, with its transparency if it has any."""
    small = image.copy() if image.mode in {"RGB", "RGBA"} else image
    if small.mode not in {"RGB", "RGBA"} or "transparency" in small.info:
        small = visible(image)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), reducing_gap=1.0)
    small = upright(small)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", method=THUMBNAIL_EFFORT, icc_profile=None, exif=b"")
    return buffer.getvalue()


def is_turned(file: StoredFile) -> bool:
    """Return whether an image file's width is its height when it is shown upright; False if it cannot be read.

    Raises the errors of a storage that cannot be used.
    """
    try:
        with open_stored_image(file.source()) as image:
            return swaps_sides(orientation(image))
    except OSError as error:
        if to_storage_error(error) is not None:
            raise
        return False


def write(storage: ObjectStorage, location: ImageLocation, png: bytes, webp: bytes) -> None:
    """Write image and thumbnail, the image last, below an intent, which removes what an OSError leaves.

    Files with this content, which an interrupted request has left, are accepted; raises FileExistsError for others.
    """
    storage.write(thumbnail_key(location), webp)
    storage.write(full_key(location), png)


def remove(
    storage: ObjectStorage, locations: list[ImageLocation], kind: MediaKind = IMAGES
) -> dict[ImageLocation, OSError]:
    """Remove the files at `locations`; missing files are ignored. Returns the locations whose removal failed, and why."""
    keys_of = {location: keys(location, kind) for location in locations}
    failed = storage.delete(key for location_keys in keys_of.values() for key in location_keys)
    return {
        location: failed[key] for location, location_keys in keys_of.items() for key in location_keys if key in failed
    }


def shrink(source: Path | io.BytesIO) -> bytes:
    """Return the thumbnail of a stored image's file.

    Raises OSError when the file is missing, the errors of Pillow for a damaged one.
    """
    with open_stored_image(source) as image:
        return thumbnail(image)
