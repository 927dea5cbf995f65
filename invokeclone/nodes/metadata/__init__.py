"""Metadata: written, merged and read."""
