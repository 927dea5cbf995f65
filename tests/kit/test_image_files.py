"""Images are opened in named formats only, and too large ones before a pixel of them is decoded."""

import io
import struct
import zlib

import pytest
from PIL import Image, UnidentifiedImageError, features

from invokeclone.kit.files.image_files import (
    FORMATS,
    STORED_FORMATS,
    TooManyPixelsDeclared,
    open_image,
    open_stored_image,
)

Image.init()
WRITABLE = sorted(set(Image.SAVE) & set(Image.OPEN) - {"PDF", "MPO", "PALM"})


def encode_sample(name: str) -> io.BytesIO:
    """Return a small image in a format, skipping the test where Pillow cannot write it here."""
    file = io.BytesIO()
    for mode in ("RGB", "L", "1", "F"):
        try:
            Image.new(mode, (16, 16)).save(file, name)
        except Exception:  # noqa: BLE001  (writers refuse modes in many ways)
            file = io.BytesIO()
            continue
        file.seek(0)
        return file
    pytest.skip(f"{name} cannot be written here")


@pytest.mark.parametrize("name", WRITABLE)
def test_only_the_named_formats_are_read(name: str) -> None:
    file = encode_sample(name)
    if name in FORMATS:
        assert open_image(file).format == name
    else:
        with pytest.raises(UnidentifiedImageError):
            open_image(file)
    file.seek(0)
    if name in STORED_FORMATS:
        assert open_stored_image(file).format == name
    else:
        with pytest.raises(UnidentifiedImageError):
            open_stored_image(file)


def test_every_format_has_a_reader() -> None:
    """One without would end the search: the formats behind it would never be tried."""
    assert [name for name in FORMATS if name not in Image.OPEN] == ([] if features.check("avif") else ["AVIF"])


def test_multi_image_files_yield_the_first_image() -> None:
    file = io.BytesIO()
    image = Image.new("RGB", (16, 16), "red")
    image.save(file, "MPO", save_all=True, append_images=[image])
    file.seek(0)
    assert open_image(file).size == (16, 16)


def test_a_header_that_declares_too_many_pixels_is_refused() -> None:
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 100, 90, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
    with pytest.raises(TooManyPixelsDeclared, match="100×90"):
        open_image(io.BytesIO(head), limit=8999)
    assert open_image(io.BytesIO(head), limit=9000).size == (100, 90)
