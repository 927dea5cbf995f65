"""Images through image-to-image models: tile by tile, and up to a size."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from invokeclone.components.upscalers.load import ImageToImageNetwork

OVERLAP = 16
"""Pixels of the input that neighboring tiles share; their results are blended there."""
WHITE = 255
Report = Callable[[float], None]
"""Callback with the completed share of the tiles, 0 to 1."""


def convert_image(
    network: ImageToImageNetwork, image: Image.Image, tile_size: int, device: torch.device, report: Report
) -> Image.Image:
    """Return an RGB image after one pass of the network, in tiles of `tile_size` pixels; 0 or less: in one piece."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / WHITE
    rows, columns = list(_spans(image.height, tile_size)), list(_spans(image.width, tile_size))
    scale, dtype = network.scale, next(network.parameters()).dtype
    total = torch.zeros(3, image.height * scale, image.width * scale)
    weight = torch.zeros(1, image.height * scale, image.width * scale)
    with torch.inference_mode():
        for number, (row, column) in enumerate((row, column) for row in rows for column in columns):
            tile = network(pixels[..., row, column].to(device, dtype))[0].float().cpu()
            share = _ramp(tile.shape[1], scale)[:, None] * _ramp(tile.shape[2], scale)
            span = _scale_span(row, scale), _scale_span(column, scale)
            total[:, *span] += tile * share
            weight[:, *span] += share
            report((number + 1) / (len(rows) * len(columns)))
    levels = (total / weight * WHITE).round().clamp(0, WHITE).byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def _spans(length: int, tile_size: int) -> Iterator[slice]:
    """Yield the tiles along a side of `length` pixels; all have the same size, so the last overlaps more."""
    if tile_size <= 0 or tile_size >= length:
        yield slice(0, length)
        return
    step = max(1, tile_size - min(OVERLAP, tile_size // 2))
    for start in range(0, length - tile_size, step):
        yield slice(start, start + tile_size)
    yield slice(length - tile_size, length)


def _scale_span(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)


def _ramp(length: int, scale: int) -> torch.Tensor:
    """Return weights along a side of a tile, which increase from both ends over the overlap."""
    distance = torch.minimum(torch.arange(1, length + 1), torch.arange(length, 0, -1))
    return distance.clamp(max=OVERLAP * scale).float()
