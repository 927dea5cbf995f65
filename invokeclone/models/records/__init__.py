"""Registered models: their rows, changes to them, images, relationships, and where their files lie."""
