"""Nodes for primitives, mathematics, strings, collections, batches and workflows."""
