"""Pixel operations of the image nodes on NumPy arrays. Nodes import them inside `invoke`."""
