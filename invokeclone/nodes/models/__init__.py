"""Nodes that select models of all families."""
