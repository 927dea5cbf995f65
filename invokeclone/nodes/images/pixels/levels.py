"""Histogram matching."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def ranks(channel: Bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the counts of the 256 values, and the fraction of smaller pixels plus half of the equal ones."""
    counts = np.bincount(channel.ravel(), minlength=256)
    return counts, (counts.cumsum() - counts / 2) / channel.size


def match_histogram(channel: Bytes, reference: Bytes) -> Bytes:
    """Return a channel with its values replaced by those of the same rank in the reference."""
    _, source_ranks = ranks(channel)
    counts, reference_ranks = ranks(reference)
    present_values = np.flatnonzero(counts)
    table: Bytes = np.round(np.interp(source_ranks, reference_ranks[present_values], present_values)).astype(np.uint8)
    return table.take(channel)
