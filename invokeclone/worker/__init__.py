"""The worker process, one per device, which claims queue items from the database and runs them."""
