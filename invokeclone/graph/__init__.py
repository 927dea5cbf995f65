"""Nodes and their fields as words, graphs and their rules, and how a graph is run step by step (without running it)."""
