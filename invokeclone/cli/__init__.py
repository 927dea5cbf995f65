"""The command line: serve, openapi, generate, models, db; it reads arguments and calls the rooms below."""
