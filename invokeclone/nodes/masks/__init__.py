"""Masks as images and as tensors."""
