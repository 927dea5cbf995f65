"""Base classes of nodes, the node registry, shared outputs, and type compatibility of connections."""
