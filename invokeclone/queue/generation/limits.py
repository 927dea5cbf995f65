"""Limits of generation requests. Sizes in pixels."""

SEEDS = 2**32
MIN_SIDE = 64
MAX_PIXELS = 4096 * 4096
MAX_SIDE = 8192
MAX_LORAS = 32
MAX_CONTROLS = 16
MAX_REFERENCES = 16


def is_within_limits(width: int, height: int) -> bool:
    """Return whether an image size in pixels is within the limits."""
    return max(width, height) <= MAX_SIDE and width * height <= MAX_PIXELS
