"""The workflow library: saved workflows with thumbnails, default workflows, and conversion to graphs."""
