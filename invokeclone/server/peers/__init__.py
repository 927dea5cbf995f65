"""Several servers on one PostgreSQL database: hints for each other's workers, and events for each other's clients."""
