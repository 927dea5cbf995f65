"""Building blocks of record classes: common fields, kinds, variants and default settings."""
