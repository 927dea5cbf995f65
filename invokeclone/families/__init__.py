"""Model families, one folder each.

`spec` has record classes and architectures (without torch), `load`, `pipeline` and `nodes` the computation, `recipe`
the graph of a request.
"""
