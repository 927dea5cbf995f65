"""Parameters that another program sets in the web UI: kept as client state, told as an event."""
