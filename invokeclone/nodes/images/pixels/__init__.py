"""Arithmetic on pixels for nodes: NumPy arrays in, NumPy arrays out; nodes import it inside of `invoke`."""
