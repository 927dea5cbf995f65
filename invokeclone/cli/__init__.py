"""The command line interface: serve, openapi, generate, models, user, webui and db."""
