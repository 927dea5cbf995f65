"""The composition root: app factory, HTTP middleware and errors, socket.io, worker supervision, web page."""
