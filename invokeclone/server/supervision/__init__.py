"""Worker processes: starting, messages, deadlines, restarts."""
