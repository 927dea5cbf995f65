"""Settings and limits: types, bounds, defaults, files."""
