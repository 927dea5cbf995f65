"""Image files of every mode and format, each with the pixels that a viewer shows, computed without Pillow's conversions."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

WIDTH, HEIGHT = 32, 16
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class UnusualFile:
    """A file, and what it shows."""

    data: bytes
    expected: Pixels | None
    """RGBA as stored in the file, not rotated; None for a file that must be refused."""
    tolerance: float = 0.0
    """Mean difference that the format's loss explains."""
    orientation: int = 1
    mime: str = "image/png"

    @property
    def upright(self) -> Pixels:
        assert self.expected is not None
        turned = TURNS[self.orientation](self.expected)
        return np.ascontiguousarray(turned)


TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip
"""By EXIF orientation: what makes the stored pixels upright."""

X, Y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
GRAY = (X * 8).astype(np.uint8)
RGB = np.stack([X * 8, Y * 16, (X + Y) * 5], axis=-1).astype(np.uint8)
ALPHA = (Y * 17).astype(np.uint8)
BITS = (X + Y) % 3 == 0
RAMP = np.rint(X * 65535 / (WIDTH - 1)).astype(np.uint16)
"""From black to white in 16 bits."""
SHADES = np.rint(RAMP / 257).astype(np.uint8)
PALETTE = [(i * 60 % 256, 255 - i * 30, i * 16) for i in range(8)]
INDEXES = ((X // 4) % 8).astype(np.uint8)
COLORS = np.array(PALETTE, dtype=np.uint8)[INDEXES]


def rgba(colors: Any, alpha: Any = 255) -> Pixels:
    """Return RGBA of gray or RGB and an alpha channel or value."""
    colors = np.asarray(colors, dtype=np.uint8)
    colors = np.repeat(colors[..., None], 3, axis=-1) if colors.ndim == 2 else colors
    return np.dstack([colors, np.broadcast_to(np.asarray(alpha, dtype=np.uint8), colors.shape[:2])])


def palette_image() -> Image.Image:
    image = Image.fromarray(INDEXES).copy()
    image.putpalette([value for color in PALETTE for value in color])
    return image


def gray16(array: Any = RAMP) -> Image.Image:
    return Image.fromarray(np.asarray(array, dtype="<u2"))


def file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def raw_png(depth: int, color_type: int, rows: list[bytes], *extra: bytes) -> bytes:
    """Return a PNG written by hand."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def deep_rows(*channels: Any) -> list[bytes]:
    stacked = np.stack(channels, axis=-1).astype(">u2")
    return [row.tobytes() for row in stacked]


def packed_rows(values: Any, depth: int) -> list[bytes]:
    per_byte = 8 // depth
    return [
        bytes(
            sum(int(value) << (8 - depth * (place + 1)) for place, value in enumerate(row[start : start + per_byte]))
            for start in range(0, len(row), per_byte)
        )
        for row in values
    ]


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """Return a PNG with a chunk behind its header."""
    return png[:33] + chunk(name, content) + png[33:]


def texts(**entries: str) -> PngInfo:
    info = PngInfo()
    for key, text in entries.items():
        info.add_text(key, text)
    return info


def exif(orientation: int) -> Image.Exif:
    entries = Image.Exif()
    entries[0x0112] = orientation
    return entries


# Color profiles


def tag_table(tags: dict[bytes, bytes], space: bytes, pcs: bytes, kind: bytes) -> bytes:
    """Return an ICC profile of version 2."""
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += padded
    header = struct.pack(">I4sI4s4s4s", 0, b"test", 0x02400000, kind, space, pcs) + struct.pack(
        ">6H", 2026, 1, 1, 0, 0, 0
    )
    header += b"acsp" + bytes(28) + struct.pack(">III", 0x0000F6D6, 0x00010000, 0x0000D32D)
    header = header.ljust(128, b"\0")
    profile = header + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def description(text: bytes) -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)


WHITE_POINT = (0.9642, 1.0, 0.8249)
TO_XYZ = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
"""sRGB to XYZ of D50."""


def swapped_profile() -> bytes:
    """Return a linear RGB profile whose red is sRGB's green and whose green is sRGB's red."""
    red, green, blue = (fixed(*TO_XYZ[:, column]) for column in (1, 0, 2))
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    tags = {b"desc": description(b"swapped"), b"wtpt": b"XYZ " + bytes(4) + fixed(*WHITE_POINT)}
    tags |= {name: b"XYZ " + bytes(4) + value for name, value in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue))}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return tag_table(tags, b"RGB ", b"XYZ ", b"mntr")


def as_srgb(linear: Any) -> Pixels:
    """Return linear light 0..1 in the curve of sRGB."""
    linear = np.clip(linear, 0, 1)
    curved = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return np.rint(curved * 255).astype(np.uint8)


def cmyk_profile() -> bytes:
    """Return a CMYK profile in which the ink C is gray and K is black: lightness is 100 * (1 - c / 2) * (1 - k)."""
    grid = b""
    for corner in range(16):
        cyan, _, _, key = ((corner >> (3 - ink)) & 1 for ink in range(4))
        lightness = (1 - cyan / 2) * (1 - key)
        grid += bytes([round(lightness * 255), 128, 128])
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + grid + ramp * 3
    tags = {b"desc": description(b"inks"), b"wtpt": b"XYZ " + bytes(4) + fixed(*WHITE_POINT), b"A2B0": lut}
    return tag_table(tags, b"CMYK", b"Lab ", b"prtr")


def lightness_as_gray(lightness: Any) -> Pixels:
    """Return L* (0..100) as a gray level of sRGB."""
    level = (np.asarray(lightness) + 16) / 116
    return as_srgb(np.where(level > 6 / 29, level**3, 3 * (6 / 29) ** 2 * (level - 4 / 29)))


def cmyk_image() -> tuple[Image.Image, Pixels, Pixels]:
    """Return an image with its colors without a profile, and with `cmyk_profile`."""
    inks = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    inks[:, 8:16, 0] = 255
    inks[:, 16:24, 1] = 255
    inks[8:, :, 3] = 255
    plain = (255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255
    share = inks / 255.0
    gray = lightness_as_gray(100 * (1 - share[..., 0] / 2) * (1 - share[..., 3]))
    return Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), rgba(np.rint(plain)), rgba(gray)


@cache
def unusual_files() -> dict[str, UnusualFile]:
    """Return all files by name."""
    files: dict[str, UnusualFile] = {}

    def add(name: str, data: bytes, expected: Pixels | None, tolerance: float = 0.0, orientation: int = 1) -> None:
        kind = name.split(maxsplit=1)[0]
        files[name] = UnusualFile(data, expected, tolerance, orientation, f"image/{kind}")

    gray, color, paint = Image.fromarray(GRAY), Image.fromarray(RGB), palette_image()
    clear = Image.fromarray(rgba(RGB, ALPHA))
    bits = Image.fromarray(BITS)
    gray_alpha = Image.merge("LA", (gray, Image.fromarray(ALPHA)))
    black_white = np.where(BITS, 255, 0)
    seen, seen_clear = rgba(RGB), rgba(RGB, ALPHA)
    huge = "text " * 500_000
    cmyk, cmyk_plain, cmyk_profiled = cmyk_image()

    # PNG
    add("png 1", file(bits, "PNG"), rgba(black_white))
    add("png 1 transparent", file(bits, "PNG", transparency=0), rgba(black_white, black_white))
    add("png L", file(gray, "PNG"), rgba(GRAY))
    add("png L transparent", file(gray, "PNG", transparency=80), rgba(GRAY, np.where(GRAY == 80, 0, 255)))
    add("png LA", file(gray_alpha, "PNG"), rgba(GRAY, ALPHA))
    add("png P", file(paint, "PNG"), rgba(COLORS))
    add("png P transparent", file(paint, "PNG", transparency=3), rgba(COLORS, np.where(INDEXES == 3, 0, 255)))
    add("png P alphas", file(paint, "PNG", transparency=bytes(range(0, 240, 30))), rgba(COLORS, INDEXES * 30))
    add("png P 4 bits", file(paint, "PNG", bits=4), rgba(COLORS))
    add("png RGB", file(color, "PNG"), seen)
    add("png RGB transparent", file(color, "PNG", transparency=tuple(RGB[5, 5].tolist())), rgba(RGB, np.where((RGB[5, 5] == RGB).all(-1), 0, 255)))  # fmt: skip
    add("png RGBA", file(clear, "PNG"), seen_clear)
    add("png I;16", file(gray16(), "PNG"), rgba(SHADES), 0.5)
    add("png I;16 transparent", raw_png(16, 0, deep_rows(RAMP), chunk(b"tRNS", struct.pack(">H", int(RAMP[0, 5])))), rgba(SHADES, np.where(RAMP[0, 5] == RAMP, 0, 255)), 0.5)  # fmt: skip
    add("png LA 16 bits", raw_png(16, 4, deep_rows(RAMP, RAMP[:, ::-1])), rgba(RAMP >> 8, RAMP[:, ::-1] >> 8), 0.5)
    add("png RGB 16 bits", raw_png(16, 2, deep_rows(*(RGB[..., i] * np.uint16(257) for i in range(3)))), seen)
    add("png RGBA 16 bits", raw_png(16, 6, deep_rows(*(seen_clear[..., i] * np.uint16(257) for i in range(4)))), seen_clear)  # fmt: skip
    add("png 2 bits", raw_png(2, 0, packed_rows(X % 4, 2)), rgba(X % 4 * 85))
    add("png 4 bits", raw_png(4, 0, packed_rows(X % 16, 4)), rgba(X % 16 * 17))
    add("png huge compressed text", file(color, "PNG", pnginfo=_zipped(huge)), seen)
    add("png huge international text", with_chunk(file(color, "PNG"), b"iTXt", b"k\0\1\0\0\0" + zlib.compress(huge.encode())), seen)  # fmt: skip
    add("png huge plain text", file(color, "PNG", pnginfo=texts(Comment=huge)), seen)
    add("png huge profile", with_chunk(file(color, "PNG"), b"iCCP", b"p\0\0" + zlib.compress(bytes(2**21))), seen)
    add("png broken text", with_chunk(file(color, "PNG"), b"zTXt", b"k\0\0" + b"no zip"), seen)
    add("png sRGB profile", file(color, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()), seen)  # fmt: skip
    swapped = rgba(as_srgb(RGB[..., [1, 0, 2]] / 255))
    add("png other profile", file(color, "PNG", icc_profile=swapped_profile()), swapped, 2)
    add("png other profile RGBA", file(clear, "PNG", icc_profile=swapped_profile()), np.dstack([swapped[..., :3], ALPHA]), 2)  # fmt: skip
    add("png damaged profile", file(color, "PNG", icc_profile=b"no profile" * 20), seen)
    add("png animated", file(color, "PNG", save_all=True, append_images=[Image.new("RGB", color.size)]), seen)
    add("png rotated", file(color, "PNG", exif=exif(6)), seen, 0, 6)
    add("png I;16 rotated", file(gray16(), "PNG", exif=exif(8)), rgba(SHADES), 0.5, 8)
    add("png P rotated", file(paint, "PNG", exif=exif(3)), rgba(COLORS), 0, 3)
    add("png truncated", file(color, "PNG")[:-60], None)
    add("png empty", b"", None)

    # JPEG
    fine = {"quality": 100, "subsampling": 0}
    for number in range(1, 9):
        add(f"jpeg rotated {number}", file(color, "JPEG", exif=exif(number), **fine), seen, 2, number)
    add("jpeg L", file(gray, "JPEG", quality=100), rgba(GRAY), 2)
    add("jpeg progressive", file(color, "JPEG", progressive=True, **fine), seen, 2)
    add("jpeg CMYK", file(cmyk, "JPEG", quality=100), cmyk_plain, 3)
    add("jpeg CMYK with profile", file(cmyk, "JPEG", icc_profile=cmyk_profile(), quality=100), cmyk_profiled, 4)
    add("jpeg CMYK damaged profile", file(cmyk, "JPEG", icc_profile=cmyk_profile()[:300], quality=100), cmyk_plain, 3)
    add("jpeg other profile", file(color, "JPEG", icc_profile=swapped_profile(), **fine), swapped, 6)
    add("jpeg wrong profile", file(color, "JPEG", icc_profile=cmyk_profile(), **fine), seen, 2)
    add("jpeg damaged exif", file(color, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", **fine), seen, 2)
    add("jpeg of several", file(color, "MPO", save_all=True, append_images=[gray.convert("RGB")], **fine), seen, 2)
    add("jpeg truncated", file(color, "JPEG", **fine)[:-200], None)

    # WebP, AVIF, GIF, BMP
    add("webp RGB", file(color, "WEBP", lossless=True), seen)
    add("webp RGBA", file(clear, "WEBP", lossless=True, exact=True), seen_clear)
    add("webp lossy", file(color, "WEBP", quality=100), seen, 6)
    add("webp animated", file(color, "WEBP", lossless=True, save_all=True, append_images=[gray.convert("RGB")]), seen)
    add("webp rotated", file(color, "WEBP", lossless=True, exif=exif(5)), seen, 0, 5)
    add("avif RGB", file(color, "AVIF", quality=100, subsampling="4:4:4"), seen, 3)
    add("gif L", file(gray, "GIF"), rgba(GRAY))
    add("gif P", file(paint, "GIF"), rgba(COLORS))
    add("gif transparent", file(paint, "GIF", transparency=2), rgba(COLORS, np.where(INDEXES == 2, 0, 255)))
    add("gif animated", file(paint, "GIF", save_all=True, append_images=[gray], duration=50), rgba(COLORS))
    add("bmp 1", file(bits, "BMP"), rgba(black_white))
    add("bmp L", file(gray, "BMP"), rgba(GRAY))
    add("bmp P", file(paint, "BMP"), rgba(COLORS))
    add("bmp RGB", file(color, "BMP"), seen)

    # TIFF
    add("tiff 1", file(bits, "TIFF"), rgba(black_white))
    add("tiff L", file(gray, "TIFF"), rgba(GRAY))
    add("tiff LA", file(gray_alpha, "TIFF"), rgba(GRAY, ALPHA))
    add("tiff P", file(paint, "TIFF"), rgba(COLORS))
    add("tiff RGB", file(color, "TIFF", compression="tiff_adobe_deflate"), seen)
    add("tiff RGBA", file(clear, "TIFF", compression="tiff_lzw"), seen_clear)
    add("tiff CMYK", file(cmyk, "TIFF"), cmyk_plain, 1)
    add("tiff CMYK with profile", file(cmyk, "TIFF", icc_profile=cmyk_profile()), cmyk_profiled, 2)
    add("tiff LAB", file(_lab_gray(), "TIFF"), rgba(lightness_as_gray(GRAY / 255 * 100)), 2)
    add("tiff I;16", file(gray16(), "TIFF"), rgba(SHADES), 0.5)
    add("tiff I;16B", file(Image.frombytes("I;16B", (WIDTH, HEIGHT), RAMP.astype(">u2").tobytes()), "TIFF"), rgba(SHADES), 0.5)  # fmt: skip
    add("tiff I", file(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), rgba(SHADES), 0.5)
    add("tiff I 31 bits", file(Image.fromarray(np.rint(RAMP / 65535 * (2**31 - 1)).astype(np.int64).clip(0, 2**31 - 1).astype(np.int32)), "TIFF"), rgba(SHADES), 0.5)  # fmt: skip
    add("tiff F to 1", file(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF"), rgba(SHADES), 0.5)
    add("tiff F to 255", file(Image.fromarray((RAMP / 257).astype(np.float32)), "TIFF"), rgba(SHADES), 0.5)
    add("tiff F with NaN", file(Image.fromarray(np.where(X == 0, np.nan, RAMP / 65535).astype(np.float32)), "TIFF"), rgba(SHADES), 0.5)  # fmt: skip
    add("tiff of several", file(color, "TIFF", save_all=True, append_images=[gray]), seen)

    # Others
    add("ppm RGB", file(color, "PPM"), seen)
    add("ppm L", file(gray, "PPM"), rgba(GRAY))
    add("ppm 1", file(bits, "PPM"), rgba(black_white))
    add("ppm 16 bits", b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + RAMP.astype(">u2").tobytes(), rgba(SHADES), 0.5)
    add("ppm text", b"P2 %d %d 255\n" % (WIDTH, HEIGHT) + b" ".join(b"%d" % v for v in GRAY.ravel()), rgba(GRAY))
    add("tga RGB", file(color, "TGA", compression="tga_rle"), seen)
    add("tga RGBA", file(clear, "TGA"), seen_clear)
    add("tga L", file(gray, "TGA"), rgba(GRAY))
    add("ico RGBA", file(clear, "ICO", sizes=[(WIDTH, HEIGHT)]), seen_clear)
    add("jp2 RGB", file(color, "JPEG2000"), seen)
    add("jp2 L", file(gray, "JPEG2000"), rgba(GRAY))
    add("jp2 RGBA", file(clear, "JPEG2000"), seen_clear)
    add("jp2 I;16", file(gray16(), "JPEG2000"), rgba(SHADES), 0.5)
    add("pcx RGB", file(color, "PCX"), seen)
    add("pcx L", file(gray, "PCX"), rgba(GRAY))
    add("pcx 1", file(bits, "PCX"), rgba(black_white))
    add("dds RGB", file(color, "DDS"), seen)
    add("dds RGBA", file(clear, "DDS"), seen_clear)
    add("text", b"not an image", None)
    return files


def _zipped(text: str) -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", text, zip=True)
    return info


def _lab_gray() -> Image.Image:
    values = np.dstack([GRAY, np.zeros_like(GRAY), np.zeros_like(GRAY)])  # raw a* and b* are signed
    return Image.frombytes("LAB", (WIDTH, HEIGHT), values.tobytes())
