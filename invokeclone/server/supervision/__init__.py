"""Supervision of worker processes: start, messages, deadlines, restarts."""
