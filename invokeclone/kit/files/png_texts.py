"""Texts and color profiles in PNG files that are larger than Pillow reads: it refuses the whole file because of them."""

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_HEAD = struct.Struct(">I4s")
_CHUNK_FRAME = 12
"""Bytes of a chunk besides its data: length, name and checksum."""
MAX_TEXT = 2**20
"""Bytes of one compressed text that Pillow reads."""
MAX_TEXTS = 32 * 2**20
"""Bytes of all compressed texts that are read; Pillow's limit is twice as high."""
_TEXT_CHUNKS = frozenset({b"zTXt", b"iTXt", b"iCCP"})


def without_large_texts(data: bytes) -> bytes:
    """Return a PNG without the texts and color profiles that are too large for Pillow, which refuses such files."""
    if not data.startswith(_SIGNATURE):
        return data
    parts, start, position, total = [], 0, len(_SIGNATURE), 0
    while position + _CHUNK_FRAME <= len(data):
        length, name = _CHUNK_HEAD.unpack_from(data, position)
        end = position + _CHUNK_FRAME + length
        if name in _TEXT_CHUNKS:
            size = MAX_TEXT if total > MAX_TEXTS else _text_size(name, data[position + _CHUNK_HEAD.size : end - 4])
            total += size
            if size >= MAX_TEXT:
                parts.append(data[start:position])
                start = end
        position = end
    return b"".join([*parts, data[start:]]) if parts else data


def _text_size(name: bytes, content: bytes) -> int:
    """Return the size of a chunk's text, decompressed up to MAX_TEXT bytes."""
    packed = content.partition(b"\0")[2][1:]
    if name == b"iTXt":
        if content.partition(b"\0")[2][:1] != b"\1":
            return 0
        packed = packed[1:].split(b"\0", 2)[-1]
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_TEXT))
    except zlib.error:
        return 0
