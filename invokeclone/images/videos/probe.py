"""Video inspection in a separate process: `python -m invokeclone.images.videos.probe FILE`.

FFmpeg is a large C program that parses untrusted files: a file that crashes it, or makes it use unlimited memory or
time, ends only this process, which has limits on both. On success it writes a line of JSON, then the first frame as
RGB, no side over `SIDE`; it exits with `EXIT_UNSUPPORTED` and a line with the reason when the file is not a decodable
H.264 video. Little but the standard library and PyAV is imported, so that it starts quickly.
"""

import json
import math
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from invokeclone.kit.process.processes import end_with_parent

SIDE = 256
EXIT_UNSUPPORTED = 2
CPU_S = 20
MEMORY = 2 * 1024**3
PIXEL_LIMIT = 64 * 1024 * 1024


class _UnsupportedVideo(Exception):
    """The file is not a supported video."""


def main(path: str) -> int:
    """Inspect the file and write the result to standard output; return the exit status."""
    end_with_parent()
    _limit_resources()
    try:
        info, pixels = _read_video(Path(path))
    except _UnsupportedVideo as error:
        sys.stdout.write(str(error))
        return EXIT_UNSUPPORTED
    sys.stdout.buffer.write(json.dumps(info).encode() + b"\n" + pixels)
    return 0


def _limit_resources() -> None:
    """Limit time and memory to the needs of a legitimate video, and disable core files; does nothing on Windows."""
    try:
        import resource
    except ImportError:
        return
    for resource_id, limit in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(resource_id, (limit, limit))


def _read_video(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the fields of the record, and the pixels of the first frame."""
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        with av.open(str(path), format="mp4") as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise _UnsupportedVideo("it has no video stream")
            codec = stream.codec_context
            if codec is None or codec.name != "h264":
                raise _UnsupportedVideo(f"the video is {codec.name if codec else 'in an unknown format'}, not H.264")
            if codec.width * codec.height > PIXEL_LIMIT:
                raise _UnsupportedVideo("its frames are too large")
            stream.thread_type = "NONE"
            frame = next(container.decode(stream), None)
            if frame is None:
                raise _UnsupportedVideo("it has no frames")
            info = {
                "width": frame.width,
                "height": frame.height,
                "duration": _seconds(stream.duration, stream.time_base)
                or _seconds(container.duration, Fraction(1, av.time_base)),
                "fps": _rate(stream.average_rate),
            }
            small = _scale_down(frame)
    except (av.error.FFmpegError, MemoryError, ValueError, OverflowError) as error:
        raise _UnsupportedVideo(f"its first frame cannot be decoded: {type(error).__name__}") from error
    return {**info, "thumbnail": [small.width, small.height]}, _rows(small)


def _seconds(ticks: int | None, base: Fraction | None) -> float:
    """Return a duration in seconds, 0 for a missing or invalid one."""
    return round(float(ticks * base), 6) if ticks and base and ticks > 0 else 0.0


def _rate(rate: Fraction | None) -> float | None:
    """Return the frames per second, None if missing or invalid."""
    fps = float(rate) if rate else 0.0
    return fps if math.isfinite(fps) and fps > 0 else None


def _scale_down(frame: Any) -> Any:
    """Return the frame as RGB, with no side over `SIDE`, never enlarged."""
    scale = min(1.0, SIDE / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    return frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")


def _rows(frame: Any) -> bytes:
    """Return the pixels of an RGB frame without row padding."""
    plane = frame.planes[0]
    packed = memoryview(plane)
    rows = [
        packed[start : start + 3 * frame.width] for start in range(0, plane.line_size * frame.height, plane.line_size)
    ]
    return b"".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
