"""Nodes that need no model, a file per theme; each is found by the registry."""
