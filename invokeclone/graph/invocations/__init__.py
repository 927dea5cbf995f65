"""Nodes: base classes, the registry, outputs that several nodes share, types of connections."""
