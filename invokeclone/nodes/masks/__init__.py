"""Nodes for masks as images and as tensors."""
