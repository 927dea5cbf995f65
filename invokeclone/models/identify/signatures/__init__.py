"""Signatures of model kinds that several families share; those of a single family are in its `spec.py`."""
