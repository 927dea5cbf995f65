"""Positions of FLUX.1's tokens, and their rotary tables."""

from collections.abc import Sequence

import torch

_THETA = 10000.0


def positions(rows: int, columns: int, index: int = 0, offset: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Return the positions (rows · columns, 3) of an image's tokens: `index` of the image, row, column.

    The first token has row and column `offset`.
    """
    grid = torch.zeros(rows, columns, 3)
    grid[..., 0] = index
    grid[..., 1] = torch.arange(rows)[:, None] + offset[0]
    grid[..., 2] = torch.arange(columns)[None, :] + offset[1]
    return grid.reshape(-1, 3)


def rotary_table(
    positions: torch.Tensor, axes: Sequence[int], dtype: torch.dtype, stretch: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (tokens, width of a head) of rotary embeddings (arXiv 2104.09864), on the CPU.

    Positions and results are rounded to `dtype`. `stretch` is the exponent's factor by which dynamic position
    extrapolation enlarges the base of each axis: scale^(stretch · d / (d - 2)) is given as `log(scale) · stretch`.
    """
    rounded = positions.to(dtype).double()
    cosines, sines = [], []
    for axis, width in enumerate(axes):
        base = _THETA * float(torch.exp(torch.tensor(stretch * width / (width - 2), dtype=torch.float64)))
        frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.outer(rounded[:, axis], frequencies)
        cosines.append(angles.cos().repeat_interleave(2, dim=1))
        sines.append(angles.sin().repeat_interleave(2, dim=1))
    return torch.cat(cosines, dim=1).to(dtype).float(), torch.cat(sines, dim=1).to(dtype).float()
