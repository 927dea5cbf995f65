"""Graphs, their validation, and the execution state (session) of a run."""
