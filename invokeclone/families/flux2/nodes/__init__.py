"""Nodes of FLUX.2."""
