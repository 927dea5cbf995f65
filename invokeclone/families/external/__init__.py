"""Models behind somebody else's service."""
