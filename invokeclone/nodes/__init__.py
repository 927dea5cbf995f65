"""Nodes that belong to no model family, in folders by theme; `graph/registry.py` finds them."""
