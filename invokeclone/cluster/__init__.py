"""Engines that place joined workers on the machines of a cluster. The database decides about items; an engine only starts processes."""
