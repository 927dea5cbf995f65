"""Nodes of FLUX.1."""
