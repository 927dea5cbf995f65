"""How files and folders of a kind look that several families have; what only one family knows is in its `spec.py`."""
