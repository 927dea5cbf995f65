"""Parameters that another program sets in the web UI: stored as client state and sent as an event."""
