"""Models of external API services."""
