"""invokeclone: InvokeAI's REST API, queue and node graphs, served by FastAPI and run by worker processes."""
