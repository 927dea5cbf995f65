"""Graphs, the rules that make them valid, and the state of a run."""
