"""Registered models: records, changes, images, relationships, and the location of their files."""
