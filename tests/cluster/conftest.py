"""The server of the joined workers' tests, for workers that an engine has placed."""

from tests.server.joined.conftest import cluster

__all__ = ["cluster"]
