"""The routes, a module per theme; `api.py` joins them. `routing.py` has what they share: the router and its errors."""
