"""Quantized weights: packed tensors of files, and layers that decode them when they are used."""
