"""Models that make pictures of pictures."""
