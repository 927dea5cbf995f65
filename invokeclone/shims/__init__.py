"""Other dialects over the same queue: each folder translates one, and none makes a picture by itself.

`runs.py` enqueues and waits, `pictures.py` takes pictures in and hands them out, `dialect.py` words errors; each dialect's
`api.py` has the routes.
"""
