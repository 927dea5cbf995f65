"""Nodes that belong to no model family, in folders by theme. `graph/invocations/registry.py` discovers them."""
