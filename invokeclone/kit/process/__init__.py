"""Processes and threads: child processes, offloading from the event loop, pausing the garbage collector."""
