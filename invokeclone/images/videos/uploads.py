"""Checks of uploaded videos: MP4 signature, codec, size, and thumbnail.

The file is decoded in a separate process (see `probe`).
"""

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple

import orjson
from PIL import Image

from invokeclone.images import files
from invokeclone.images.encoding.embedded_metadata import parse_form_metadata
from invokeclone.images.errors import MetadataNotObject, NotAVideo, VideoNotDecoded
from invokeclone.images.videos.probe import EXIT_UNSUPPORTED
from invokeclone.kit import log
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.process.processes import child_environment

PROBE_TIMEOUT_S = 60
"""More than the CPU limit of `probe`, for a busy machine."""

MIN_FTYP_SIZE = 16
QUICKTIME = b"qt  "
MIME = "video/mp4"

_log = log.get("images.videos")


class VideoInfo(NamedTuple):
    """Properties of a video, and its thumbnail."""

    width: int
    height: int
    duration: float
    fps: float | None
    webp: bytes


def require_mp4_type(filename: str, content_type: str | None) -> None:
    """Raise NotAVideo unless the content type or the file name indicates an MP4."""
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type != MIME and not filename.lower().endswith(".mp4"):
        raise NotAVideo(f"neither the content type {content_type!r} nor the file name indicates an MP4")


def metadata(text: str | None, limits: Limits) -> str | None:
    """Return the metadata of the form, None without any; raises MetadataNotObject, NotStorable, TooLarge."""
    if not text:
        return None
    if parse_form_metadata(text, limits) is None:
        raise MetadataNotObject
    return text


async def inspect(path: Path) -> VideoInfo:
    """Inspect an MP4; raises NotAVideo when it is not an MP4, not H.264, or its first frame cannot be decoded.

    The subclass VideoNotDecoded is raised when the decoder took too long or was killed.
    """
    await in_thread(_require_mp4, path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "invokeclone.images.videos.probe",
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        output, stderr = await asyncio.wait_for(process.communicate(), PROBE_TIMEOUT_S)
    except TimeoutError as error:
        raise VideoNotDecoded("it cannot be decoded within a minute") from error
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode == EXIT_UNSUPPORTED:
        raise NotAVideo(output.decode())
    if process.returncode is not None and process.returncode < 0:
        _log.warning("the decoder was killed by signal %d on an upload", -process.returncode)
        raise VideoNotDecoded("the decoder crashed on it")
    if process.returncode:
        raise RuntimeError(f"the video decoder failed: {stderr.decode(errors='replace')[-2000:]}")
    return await in_thread(_parse_probe_output, output)


def _require_mp4(path: Path) -> None:
    """Raise NotAVideo unless the file starts with an `ftyp` box whose brand is not QuickTime."""
    with path.open("rb") as file:
        head = file.read(MIN_FTYP_SIZE)
    if len(head) < MIN_FTYP_SIZE or head[4:8] != b"ftyp" or int.from_bytes(head[:4]) < MIN_FTYP_SIZE:
        raise NotAVideo("it is not an MP4")
    if head[8:12] == QUICKTIME:
        raise NotAVideo("it is a QuickTime movie, not an MP4")


def _parse_probe_output(output: bytes) -> VideoInfo:
    line, _, pixels = output.partition(b"\n")
    info = orjson.loads(line)
    frame = Image.frombytes("RGB", tuple(info.pop("thumbnail")), pixels)
    return VideoInfo(**info, webp=files.thumbnail(frame))
