"""The worker process that runs queue items: one per device, connected to the server by pipes and to the queue by the database."""
