"""Processes and threads: child processes, leaving the event loop, the garbage collector."""
