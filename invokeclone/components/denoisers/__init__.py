"""Denoisers that several families have."""
