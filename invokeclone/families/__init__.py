"""Model families, a folder each: `spec` states what it is (no torch), `load`, `pipeline`, `nodes`, and `recipe` (a graph of a request)."""
