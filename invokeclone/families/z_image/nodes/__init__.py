"""Nodes of Z-Image."""
