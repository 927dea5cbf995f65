"""Nodes that make images of images, without a model."""
