"""The composition root: app factory, HTTP middleware and error handling, socket.io, worker supervision, OpenAPI, web page."""
