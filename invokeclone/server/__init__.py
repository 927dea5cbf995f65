"""The composition root: the app factory, exceptions to HTTP, socket.io, workers' supervisor, OpenAPI, app info, the page."""
