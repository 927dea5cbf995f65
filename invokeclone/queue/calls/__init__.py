"""Calls of saved workflows: a running item calls (`begin`), the workflow becomes sessions, and a chain of items waits and ends."""
