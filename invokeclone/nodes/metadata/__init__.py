"""Nodes that create, merge and read metadata."""
