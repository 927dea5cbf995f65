"""Nodes that name models of any family."""
