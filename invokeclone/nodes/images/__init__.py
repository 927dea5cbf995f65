"""Image processing nodes that use no model."""
