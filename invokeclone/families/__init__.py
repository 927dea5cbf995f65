"""Model families, a folder each: `spec.py` says what it is (no torch), `pipe.py` runs it (torch), `nodes.py` are its nodes."""
