"""Models that fill holes in images."""
